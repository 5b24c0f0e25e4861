// classify_c: the likeliest class of a PNG file at one lambda, in C99.
#include <png.h>
#include <stdio.h>
#include <stdlib.h>

#include "floats_rt/floats_rt.h"

// The pixels of a file, red first, which the caller frees; NULL if it cannot be read.
static uint8_t* read_png(const char* path, floats_rt_image_view* view) {
  png_image image = {.version = PNG_IMAGE_VERSION};
  const png_color white = {255, 255, 255};
  uint8_t* pixels = NULL;
  if (png_image_begin_read_from_file(&image, path)) {
    image.format = PNG_FORMAT_RGB;
    pixels = malloc(PNG_IMAGE_SIZE(image));
    *view = (floats_rt_image_view){pixels, image.height, image.width, 0, FLOATS_RT_RGB};
    if (pixels && png_image_finish_read(&image, &white, pixels, 0, NULL)) return pixels;
  }
  fprintf(stderr, "%s: %s\n", path, image.message);
  png_image_free(&image);
  free(pixels);
  return NULL;
}

// Prints the likeliest class, and returns the status.
static floats_rt_status classify(floats_rt_model* model, const floats_rt_image_view* image, float lambda) {
  const size_t count = floats_rt_label_count(model);
  float* const logits = calloc(count, sizeof(float));
  floats_rt_status status = floats_rt_set_lambda(model, lambda);
  if (!status) status = floats_rt_infer_images(model, image, 1, logits, count);
  size_t best = 0;
  for (size_t i = 1; !status && i < count; ++i) best = logits[i] > logits[best] ? i : best;
  if (!status) printf("%s\n", floats_rt_label(model, best));
  free(logits);
  return status;
}

int main(int count, char** arguments) {
  if (count != 4) {
    fputs("usage: classify_c BUNDLE IMAGE.png LAMBDA\n", stderr);
    return 2;
  }
  floats_rt_image_view image;
  uint8_t* const pixels = read_png(arguments[2], &image);
  if (!pixels) return 1;
  floats_rt_model* model;
  floats_rt_status status = floats_rt_load(arguments[1], NULL, &model);
  if (!status) status = classify(model, &image, strtof(arguments[3], NULL));
  if (status) fprintf(stderr, "%s\n", floats_rt_last_error());
  floats_rt_free(model);
  free(pixels);
  return status ? 1 : 0;
}
