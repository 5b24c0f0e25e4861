# Finds what the TensorRT backend is compiled with: TensorRT's headers and CUDA's. libnvinfer itself is opened while the
# program runs and is not looked for.
#
# Looks where JetPack and NVIDIA's packages put them; TensorRT_ROOT and CUDAToolkit_ROOT (variables or environment) name
# other places. Defines the target TensorRT::headers.
find_path(TensorRT_INCLUDE_DIR NvInferRuntime.h HINTS ENV TensorRT_ROOT PATH_SUFFIXES include
          PATHS /usr/local/tensorrt /opt/tensorrt)
find_path(TensorRT_CUDA_INCLUDE_DIR cuda_runtime_api.h HINTS ${CUDAToolkit_ROOT} ENV CUDAToolkit_ROOT
          PATH_SUFFIXES include PATHS /usr/local/cuda)

# The version: NV_TENSORRT_MAJOR and so on, or since 10.8 what these are defined as.
if(TensorRT_INCLUDE_DIR AND EXISTS ${TensorRT_INCLUDE_DIR}/NvInferVersion.h)
  file(STRINGS ${TensorRT_INCLUDE_DIR}/NvInferVersion.h lines REGEX "#define (NV_TENSORRT|TRT)_(MAJOR|MINOR|PATCH)")
  foreach(part MAJOR MINOR PATCH)
    if("${lines}" MATCHES "(NV_TENSORRT_${part}|TRT_${part}_ENTERPRISE) ([0-9]+)")
      list(APPEND version ${CMAKE_MATCH_2})
    endif()
  endforeach()
  list(JOIN version . TensorRT_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  TensorRT
  REQUIRED_VARS TensorRT_INCLUDE_DIR TensorRT_CUDA_INCLUDE_DIR
  VERSION_VAR TensorRT_VERSION)
mark_as_advanced(TensorRT_INCLUDE_DIR TensorRT_CUDA_INCLUDE_DIR)

if(TensorRT_FOUND AND NOT TARGET TensorRT::headers)
  add_library(TensorRT::headers INTERFACE IMPORTED)
  target_include_directories(TensorRT::headers SYSTEM INTERFACE ${TensorRT_INCLUDE_DIR} ${TensorRT_CUDA_INCLUDE_DIR})
endif()
