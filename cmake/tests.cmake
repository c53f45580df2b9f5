# What `colcon test` runs: the Rust unit tests, and the installed programs over real DDS with rclpy on the other side.
# `make test` runs these and all others.
find_package(ament_cmake_pytest REQUIRED)

# Built when the tests run, not with every build: minutes the first time.
ament_add_test(cargo_test
  COMMAND ${CMAKE_COMMAND} -E env
    "AMENT_PREFIX_PATH=${staging_prefix}:${ament_prefix_path}"
    "LD_LIBRARY_PATH=${staging_prefix}/lib:$ENV{LD_LIBRARY_PATH}"
    "CMAKE_PREFIX_PATH="
    ${CARGO} test --release --locked --lib
    --manifest-path ${CMAKE_CURRENT_SOURCE_DIR}/Cargo.toml --target-dir ${cargo_target_dir}
  WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
  GENERATE_RESULT_FOR_RETURN_CODE_ZERO
  TIMEOUT 3600)

ament_add_pytest_test(node_test tests/ros/test_grounding.py
  ENV "LG_BIN_DIR=${CMAKE_INSTALL_PREFIX}/lib/${PROJECT_NAME}" "RMW_IMPLEMENTATION=rmw_fastrtps_cpp"
  APPEND_ENV
    "AMENT_PREFIX_PATH=${CMAKE_INSTALL_PREFIX}"
    "PYTHONPATH=${CMAKE_INSTALL_PREFIX}/${PYTHON_INSTALL_DIR}"
  APPEND_LIBRARY_DIRS "${CMAKE_INSTALL_PREFIX}/lib"
  WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
  TIMEOUT 300)
