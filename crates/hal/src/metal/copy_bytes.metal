// to[i] = from[i] for i < size, 16 bytes a thread.
#include <metal_stdlib>
using namespace metal;

kernel void copy_bytes(
    device const uchar* from [[buffer(0)]],
    device uchar* to [[buffer(1)]],
    constant ulong& size [[buffer(2)]],
    uint thread_id [[thread_position_in_grid]]
) {
    ulong first = ulong(thread_id) * 16;
    ulong end = min(first + 16, size);
    for (ulong i = first; i < end; i++) {
        to[i] = from[i];
    }
}
