// A process-wide pool of fixed workers. The calling thread works too; workers spin briefly, then yield, then sleep.
#pragma once
#include <cstddef>
#include <cstdint>

namespace blip2 {

// Runs body(context, task) for every task in 0 … tasks - 1 and returns when all are done. Which thread runs a task is
// not fixed, so a task must write only what it owns; results then do not depend on the number of threads.
// A call from inside a task, or while another thread uses the pool, runs on the calling thread alone.
// If a task throws, on any thread, tasks that have not begun are skipped, and the first exception is rethrown here after the others ended.
void run_tasks(int64_t tasks, void (*body)(void* context, int64_t task), void* context);

// Number of threads from now on, including the calling one.
void set_threads(int count);
int threads();

// Memory of the calling thread, 64-byte aligned, kept between calls; each slot holds one block, uninitialised. @throws OutOfMemory
enum ScratchSlot { kPackedPanels, kLocalPanels, kScores, kRow, kMask, kPartials, kLossScores, kLossRows, kLossPart, kScratchSlots };
float* scratch(ScratchSlot slot, int64_t floats);

}  // namespace blip2
