package following

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	hubv1 "switchyard.example/clients/gen/switchyard/v1"
	"switchyard.example/clients/refusal"
)

// session is one, with a connection of its own. It returns why it is lost, or the error that ends the program.
func (c *Client) session(stop context.Context) (lost, err error) {
	conn, err := grpc.NewClient(c.Server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	silence := time.AfterFunc(connect, cancel)
	defer silence.Stop()
	c.delay = 0
	if c.call, err = hubv1.NewHubServiceClient(conn).Session(ctx); err == nil {
		c.begin()
		defer context.AfterFunc(stop, c.leave)()
	}
	for err == nil {
		var response *hubv1.SessionResponse
		if response, err = c.call.Recv(); err == nil {
			silence.Stop()
			if lost, err := c.take(stop, response); lost != nil || err != nil {
				return lost, err
			}
			silence.Reset(2*heartbeat + 5*time.Second)
		}
	}
	why := status.Convert(err)
	switch {
	case ctx.Err() != nil:
		return errors.New("the hub is silent"), nil
	case errors.Is(err, io.EOF):
		return errors.New("the hub closed the session"), nil
	case why.Code() == codes.Unauthenticated, why.Code() == codes.PermissionDenied, why.Code() == codes.Unimplemented,
		why.Code() == codes.Aborted:
		return nil, fmt.Errorf("no session with the hub: %s", refusal.Describe(why))
	}
	c.delay = max(c.delay, refusal.Delay(why))
	return errors.New(refusal.Describe(why)), nil
}
