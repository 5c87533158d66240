/* The agent's wire protocol as data, the mirror of src/firkin/agent/frames.py and messages.py. */
#ifndef FIRKIN_FRAMES_H
#define FIRKIN_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FRAME_MAGIC = 0x4b46,
    FRAME_HEADER = 12,
    FRAME_MAX_PAYLOAD = 65536,
    HELLO_MAGIC = 0x4e494b46,
    PROTOCOL_VERSION = 2,
    STDIN_WINDOW = 262144, /* bytes of stdin that the agent holds for a stream */
};

enum frame_type {
    FRAME_HELLO = 1,
    FRAME_HELLO_ACK,
    FRAME_EXEC,
    FRAME_STARTED,
    FRAME_STDIN,
    FRAME_STDOUT,
    FRAME_STDERR,
    FRAME_WINDOW,
    FRAME_WINSIZE,
    FRAME_SIGNAL,
    FRAME_EXIT,
    FRAME_POWEROFF,
    FRAME_REBOOT,
    FRAME_SYNC,
    FRAME_OK,
    FRAME_ERROR,
    FRAME_TASK,
    FRAME_DIAL,
    FRAME_ATTACH,
    FRAME_DETACH,
    FRAME_KEPT,
    FRAME_IDENTITY,
};

enum frame_flag {
    EXEC_TTY = 1,
    EXEC_STDIN = 2, /* of TASK too */
    EXEC_KEPT = 4,
    STDIN_EOF = 1,
};

enum exit_kind { EXIT_CODE = 0, EXIT_SIGNAL = 1 };

enum error_code {
    ERROR_PROTOCOL = 1,
    ERROR_VERSION,
    ERROR_LIMIT,
    ERROR_NOT_FOUND,
    ERROR_NOT_EXECUTABLE,
    ERROR_WORKDIR,
    ERROR_USER,
    ERROR_REFUSED,
    ERROR_SYSTEM,
};

struct frame {
    uint8_t type;
    uint8_t flags;
    uint32_t stream;
    uint32_t len;
    unsigned char *payload;
};

/* Read a header. False when it is not one, or promises more than is allowed. */
bool frame_unpack(struct frame *frame, const unsigned char header[FRAME_HEADER]);
void frame_pack(unsigned char header[FRAME_HEADER], const struct frame *frame);

/* Reads fields in turn; once one is missing, all that follow are zero and `bad` is set. */
struct reader {
    unsigned char *at, *end;
    bool bad;
};

struct reader reader_of(const struct frame *frame);
uint16_t read_u16(struct reader *reader);
uint32_t read_u32(struct reader *reader);

/* A run of bytes after its length. */
unsigned char *read_blob(struct reader *reader, uint32_t *len);

/* A string that ends with the only NUL of its blob; an empty blob is NULL. */
const char *read_string(struct reader *reader);

/* Fill `strings` from a blob of NUL-ended strings, and end it with NULL. Bad if there are more than `max`. */
void read_strings(struct reader *reader, const char **strings, size_t max);

/* Builds a payload; what does not fit sets `bad`. */
struct writer {
    size_t len;
    bool bad;
    unsigned char data[2048];
};

void write_u16(struct writer *writer, uint16_t value);
void write_u32(struct writer *writer, uint32_t value);
void write_blob(struct writer *writer, const void *data, size_t len);

#endif
