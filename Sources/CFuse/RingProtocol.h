// The kernel's interface of FUSE over io_uring (include/uapi/linux/fuse.h of Linux 6.14), which older headers lack.
#pragma once
#include <stdint.h>

/// Bit 41 of the INIT flags, in flags2.
#define LETHEFS_FUSE_OVER_IO_URING (1u << (41 - 32))

#ifndef FUSE_OVER_IO_URING
struct fuse_uring_ent_in_out {
    uint64_t flags;
    uint64_t commit_id;
    uint32_t payload_sz;
    uint32_t padding;
    uint64_t reserved;
};

struct fuse_uring_req_header {
    /// struct fuse_in_header, then struct fuse_out_header.
    char in_out[128];
    /// The operation's own header.
    char op_in[128];
    struct fuse_uring_ent_in_out ring_ent_in_out;
};

enum fuse_uring_cmd {
    FUSE_IO_URING_CMD_INVALID = 0,
    FUSE_IO_URING_CMD_REGISTER = 1,
    FUSE_IO_URING_CMD_COMMIT_AND_FETCH = 2,
};

struct fuse_uring_cmd_req {
    uint64_t flags;
    uint64_t commit_id;
    uint16_t qid;
    uint8_t padding[6];
};
#endif
