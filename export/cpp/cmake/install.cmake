# Installs the library with its licences, and what find_package and pkg-config need to find it: nothing says where it was built.
include(CMakePackageConfigHelpers)

install(TARGETS floats_rt floats-rt-check EXPORT floats_rtTargets)
install(DIRECTORY include/ TYPE INCLUDE)

set(licences ${CMAKE_INSTALL_DATAROOTDIR}/licenses/floats_rt)
install(FILES LICENSE DESTINATION ${licences})
foreach(other nlohmann_json onnxruntime)
  install(FILES third_party/${other}/LICENSE DESTINATION ${licences} RENAME LICENSE.${other})
endforeach()

# A static library leaves it to its users to link the CUDA runtime.
get_target_property(type floats_rt TYPE)
set(FLOATS_RT_NEEDS_CUDA_RUNTIME OFF)
if(FLOATS_RT_TENSORRT AND type STREQUAL STATIC_LIBRARY)
  set(FLOATS_RT_NEEDS_CUDA_RUNTIME ON)
endif()

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/floats_rt)
install(EXPORT floats_rtTargets NAMESPACE floats_rt:: DESTINATION ${package})
configure_package_config_file(cmake/floats_rtConfig.cmake.in floats_rtConfig.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(floats_rtConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/floats_rtConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/floats_rtConfigVersion.cmake
              cmake/FindCudaRuntime.cmake
        DESTINATION ${package})

file(RELATIVE_PATH FLOATS_RT_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/floats_rt.pc.in floats_rt.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/floats_rt.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
