import EBPF

// Started by the daemon with its end of a socket as standard input; of no use otherwise.
LoaderServer.run(socket: 0)
