/* Init of a guest that is saved and restored: it counts, keeps a file open on its disk, answers UDP and vsock echoes.
 * A command a line on the serial port, an answer a line: count, clock, random, uptime, write TEXT, read, mac, fill MIB. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ECHO_PORT = 1001, UDP_PORT = 7 };

static int listen_stream(void) {
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = ECHO_PORT};
    int server = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (server < 0 || bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 8)) perror("vsock");
    return server;
}

static void echo_stream(int server) {
    for (;;) {
        char data[4096];
        int client = accept(server, 0, 0);
        ssize_t size;
        while (client >= 0 && (size = read(client, data, sizeof data)) > 0)
            if (write(client, data, size) != size) break;
        if (client >= 0) close(client);
    }
}

static int bind_datagrams(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(UDP_PORT)};
    int server = socket(AF_INET, SOCK_DGRAM, 0);
    if (server < 0 || bind(server, (struct sockaddr *)&address, sizeof address)) perror("udp");
    return server;
}

static void echo_datagrams(int server) {
    for (;;) {
        char data[2048];
        struct sockaddr_in peer;
        socklen_t length = sizeof peer;
        ssize_t size = recvfrom(server, data, sizeof data, 0, (struct sockaddr *)&peer, &length);
        if (size > 0) sendto(server, data, size, 0, (struct sockaddr *)&peer, length);
    }
}

/* The socket is open before anybody hears that the guest is ready. */
static void in_background(void (*serve)(int), int server) {
    if (server >= 0 && fork() == 0) serve(server);
}

static void set_address(const char *address) {
    struct ifreq request = {.ifr_name = "eth0"};
    struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    *in = (struct sockaddr_in){.sin_family = AF_INET};
    inet_pton(AF_INET, address, &in->sin_addr);
    ioctl(fd, SIOCSIFADDR, &request);
    inet_pton(AF_INET, "255.255.255.0", &in->sin_addr);
    ioctl(fd, SIOCSIFNETMASK, &request);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    ioctl(fd, SIOCSIFFLAGS, &request);
    close(fd);
}

static void say_mac(void) {
    struct ifreq request = {.ifr_name = "eth0"};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    unsigned char *mac = (unsigned char *)request.ifr_hwaddr.sa_data;
    ioctl(fd, SIOCGIFHWADDR, &request);
    printf("mac=%02x:%02x:%02x:%02x:%02x:%02x.\n", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
    close(fd);
}

static void say_clock(void) {
    struct timespec wall, up;
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_MONOTONIC, &up);
    printf("clock=%.3f %.3f.\n", wall.tv_sec + wall.tv_nsec / 1e9, up.tv_sec + up.tv_nsec / 1e9);
}

static void say_random(void) {
    unsigned long long word = 0;
    getrandom(&word, sizeof word, 0);
    printf("random=%016llx.\n", word);
}

static void on_disk(const char *text) {
    char block[512] = "";
    int fd = open("/dev/vda", O_RDWR | O_DIRECT | O_SYNC);
    static char aligned[4096] __attribute__((aligned(4096)));
    if (text) {
        strncpy(aligned, text, sizeof block - 1);
        if (pwrite(fd, aligned, 4096, 0) != 4096) perror("write");
    }
    memset(aligned, 0, sizeof aligned);
    if (pread(fd, aligned, 4096, 0) != 4096) perror("read");
    memcpy(block, aligned, sizeof block - 1);
    printf("disk=%s.\n", block);
    close(fd);
}

static void fill(long mib) {
    unsigned char *memory = malloc(mib << 20);
    for (long at = 0; memory && at < mib << 20; at++) memory[at] = at * 31 >> 8;
    printf("filled=%ld.\n", memory ? mib : 0);
}

int main(int argc, char **argv) {
    char line[256];
    long count = 0;
    mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
    mount("proc", "/proc", "proc", 0, 0);
    int tty = open("/dev/ttyS0", O_RDWR);
    dup2(tty, 0), dup2(tty, 1), dup2(tty, 2);
    setvbuf(stdout, 0, _IOLBF, 0);
    if (argc > 1) set_address(argv[1]);
    in_background(echo_stream, listen_stream());
    in_background(echo_datagrams, bind_datagrams());
    printf("READY\n");
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!strcmp(line, "count")) printf("count=%ld.\n", ++count);
        else if (!strcmp(line, "clock")) say_clock();
        else if (!strcmp(line, "random")) say_random();
        else if (!strcmp(line, "mac")) say_mac();
        else if (!strcmp(line, "read")) on_disk(0);
        else if (!strncmp(line, "write ", 6)) on_disk(line + 6);
        else if (!strncmp(line, "fill ", 5)) fill(atol(line + 5));
        else if (!strcmp(line, "reboot")) reboot(RB_AUTOBOOT);
    }
    for (;;) pause();
}
