// What leaves a shared library: only what is marked so.
#ifndef FLOATS_RT_EXPORT_H
#define FLOATS_RT_EXPORT_H

#define FLOATS_RT_API __attribute__((visibility("default")))

#endif  // FLOATS_RT_EXPORT_H
