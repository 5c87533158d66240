/* IDENTITY: parses the statements, has them applied, and answers with the first line of what failed. */
#include "identity.h"

#include "config.h"
#include "log.h"
#include "renew.h"
#include "text.h"

void identity_on_request(struct conn *conn, const struct frame *frame)
{
    static struct config config;
    struct text fault = {0};
    if (conn->agent->setup.power == POWER_REFUSED) {
        conn_send_error(conn, frame->stream, ERROR_REFUSED, "this agent has no machine to change");
        return;
    }
    config = (struct config){0};
    log_keep(&fault);
    int result = config_parse(&config, FORM_IDENTITY, (char *)frame->payload, frame->len);
    if (result == 0)
        result = renew(&config);
    log_keep(NULL);
    if (result < 0)
        conn_send_error(conn, frame->stream, ERROR_SYSTEM, fault.data);
    else
        conn_send(conn, FRAME_OK, frame->stream, NULL, 0);
}
