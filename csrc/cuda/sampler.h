// The fused sampler on a GPU: plain functions over addresses and a stream, for whoever holds the memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "sample/settings.h"

namespace fastreason {

enum class LogitType { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };

// All addresses are of device memory; logits are rows of V, `stride` elements apart.
struct DeviceSampleCall {
  int device;
  const void* logits;
  LogitType type;
  std::int64_t num_rows;
  int V;
  std::int64_t stride;
  std::uint64_t seed;
  const std::int64_t *prompts, *samples, *positions;
  SampleSettings settings;
  std::int64_t* tokens;
  float *logprobs, *full_logprobs;
};

// Puts one kernel on the stream, one block a row: no allocation, no synchronisation, so a CUDA graph can capture it and
// replay it with new positions. Returns a cudaError_t; 0 is success.
int launch_sampler(const DeviceSampleCall& call, void* stream);

// CUDA that this was built with, as 13000 for 13.0.
extern const int kRuntimeVersion;

// What the CUDA runtime says of this machine; makes the first CUDA calls.
struct DeviceStatus {
  int error;  // cudaError_t of asking for devices
  int num_devices;
  int driver_version;  // newest CUDA that the driver supports, as 13000 for 13.0; 0 without a driver
};
DeviceStatus device_status();

const char* error_text(int error);

}  // namespace fastreason
