#include "CLinux.h"

#include <numa.h>

int apus_numa_node_of_cpu(int cpu) {
    if (numa_available() < 0 || numa_max_node() == 0) return -1;
    int own = numa_node_of_cpu(cpu), nearest = -1;
    if (own < 0) return -1;
    for (int node = 0; node <= numa_max_node(); node++) {
        bool has_memory = numa_bitmask_isbitset(numa_all_nodes_ptr, (unsigned)node) && numa_node_size64(node, NULL) > 0;
        if (has_memory && (nearest < 0 || numa_distance(own, node) < numa_distance(own, nearest))) nearest = node;
    }
    return nearest;
}
