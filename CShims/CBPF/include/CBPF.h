#pragma once
// What Swift cannot say for itself about BPF: libbpf behind a narrow door (apus_object.h, cold), and
// atomics, thread-local scratch and clocks for the engine (apus_run.h, hot).
#include "apus_object.h"
#include "apus_run.h"
#include "apus_twin.h"
