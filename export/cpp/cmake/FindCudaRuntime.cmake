# Finds the static CUDA runtime where JetPack and NVIDIA's packages put it; CUDAToolkit_ROOT (variable or environment) names
# another place. Defines the target CudaRuntime::static. Used by the build, and by a project that links an installed static
# floats_rt with TensorRT.
find_library(CudaRuntime_LIBRARY cudart_static HINTS ${CUDAToolkit_ROOT} ENV CUDAToolkit_ROOT
             PATH_SUFFIXES lib64 lib lib/${CMAKE_LIBRARY_ARCHITECTURE} PATHS /usr/local/cuda)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CudaRuntime REQUIRED_VARS CudaRuntime_LIBRARY)
mark_as_advanced(CudaRuntime_LIBRARY)

if(CudaRuntime_FOUND AND NOT TARGET CudaRuntime::static)
  add_library(CudaRuntime::static STATIC IMPORTED)
  set_target_properties(CudaRuntime::static PROPERTIES IMPORTED_LOCATION ${CudaRuntime_LIBRARY})
endif()
