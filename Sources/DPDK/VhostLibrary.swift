import CDPDK

/// The build of DPDK's vhost library in this process: it copies every packet from and to a guest's memory.
public enum VhostLibrary {
    /// The file that the loader chose, and what could be better.
    public static var summary: String {
        let path = unsafe String(cString: apus_vhost_library())
        #if arch(x86_64)
        // The loader looks into such a folder only on the processors it is for (ld.so(8), "glibc-hwcaps").
        let isForAnyProcessor = !path.contains("/glibc-hwcaps/")
        return isForAnyProcessor ? "\(path), made for any processor: 'tools/vhost-library' makes a quicker one for those with AVX2" : path
        #else
        return path
        #endif
    }
}
