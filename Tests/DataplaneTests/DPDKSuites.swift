import Testing

/// Everything that needs the process's one EAL, one test at a time.
@Suite(.serialized) struct DPDKSuites {}
