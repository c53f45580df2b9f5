# Builds and installs the Rust programs and what they need at run time.

# What the node uses besides the interfaces' own dependencies.
foreach(package action_msgs diagnostic_msgs lifecycle_msgs rcl rcl_action rcl_interfaces rosgraph_msgs service_msgs
        std_srvs tf2_msgs unique_identifier_msgs vision_msgs visualization_msgs)
  find_package(${package} REQUIRED)
endforeach()
find_program(CARGO cargo HINTS $ENV{CARGO_HOME}/bin $ENV{HOME}/.cargo/bin REQUIRED)

# r2r makes its bindings again only when AMENT_PREFIX_PATH changes. A hash of the interface files in the staging
# path changes it with them; without that, old bindings would read new messages wrongly.
set(hashes "")
foreach(interface ${interfaces})
  file(SHA256 ${CMAKE_CURRENT_SOURCE_DIR}/${interface} hash)
  string(APPEND hashes ${hash})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${interface})
endforeach()
string(SHA256 interface_hash "${hashes}")
string(SUBSTRING ${interface_hash} 0 16 interface_hash)
set(staging_prefix ${CMAKE_CURRENT_BINARY_DIR}/staging/${interface_hash})

set(cargo_target_dir ${CMAKE_CURRENT_BINARY_DIR}/cargo)
set(programs grounding_node scene_player ground)
set(cargo_arguments build --release --locked
  --manifest-path ${CMAKE_CURRENT_SOURCE_DIR}/Cargo.toml --target-dir ${cargo_target_dir})
foreach(program ${programs})
  list(APPEND cargo_arguments --bin ${program})
endforeach()

# CMAKE_PREFIX_PATH is emptied: colcon repeats there what AMENT_PREFIX_PATH says.
string(REPLACE ";" ":" ament_prefix_path "$ENV{AMENT_PREFIX_PATH}")
add_custom_target(${PROJECT_NAME}_cargo ALL
  COMMAND ${CMAKE_COMMAND}
    -D staging_prefix=${staging_prefix} -D build_dir=${CMAKE_CURRENT_BINARY_DIR} -D package=${PROJECT_NAME}
    -P ${CMAKE_CURRENT_SOURCE_DIR}/cmake/stage_interfaces.cmake
  COMMAND ${CMAKE_COMMAND} -E env
    "AMENT_PREFIX_PATH=${staging_prefix}:${ament_prefix_path}"
    "LD_LIBRARY_PATH=${staging_prefix}/lib:$ENV{LD_LIBRARY_PATH}"
    "CMAKE_PREFIX_PATH="
    ${CARGO} ${cargo_arguments}
  WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
  COMMENT "Building the Rust programs with cargo (minutes the first time)"
  USES_TERMINAL VERBATIM)
add_dependencies(${PROJECT_NAME}_cargo
  ${PROJECT_NAME}
  ${PROJECT_NAME}__rosidl_generator_c
  ${PROJECT_NAME}__rosidl_typesupport_c
  ${PROJECT_NAME}__rosidl_typesupport_introspection_c
  ${PROJECT_NAME}__rosidl_typesupport_fastrtps_c)

foreach(program ${programs})
  install(PROGRAMS ${cargo_target_dir}/release/${program} DESTINATION lib/${PROJECT_NAME})
endforeach()
install(DIRECTORY launch config models DESTINATION share/${PROJECT_NAME})
