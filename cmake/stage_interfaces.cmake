# Lays out this package's generated headers, libraries and index entry as an installed prefix would have them.
# Arguments: staging_prefix, build_dir, package.
set(index share/ament_index/resource_index/rosidl_interfaces)

foreach(generator rosidl_generator_c rosidl_typesupport_introspection_c rosidl_typesupport_fastrtps_c)
  file(COPY ${build_dir}/${generator}/${package}
    DESTINATION ${staging_prefix}/include/${package}
    FILES_MATCHING PATTERN "*.h")
endforeach()
file(GLOB libraries ${build_dir}/lib${package}__rosidl_*.so)
file(COPY ${libraries} DESTINATION ${staging_prefix}/lib)
file(COPY ${build_dir}/ament_cmake_index/${index}/${package} DESTINATION ${staging_prefix}/${index})
