package following

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	hubv1 "switchyard.example/clients/gen/switchyard/v1"
	"switchyard.example/clients/refusal"
)

// take handles a frame.
func (c *Client) take(stop context.Context, response *hubv1.SessionResponse) (lost, err error) {
	c.busy.Lock()
	defer c.busy.Unlock()
	switch frame := response.Frame.(type) {
	case *hubv1.SessionResponse_Welcome:
		c.sessionID, c.backoff.UpSince = frame.Welcome.SessionId, time.Now()
	case *hubv1.SessionResponse_Draining:
		c.delay = frame.Draining.ReconnectDelay.AsDuration()
	case *hubv1.SessionResponse_Ended:
		return c.ended(frame.Ended)
	case *hubv1.SessionResponse_Error:
		// A command for a subscription that has just ended was too late, which is no fault.
		if text := refusal.Describe(status.FromProto(frame.Error)); !strings.Contains(text, "SUBSCRIPTION_NOT_FOUND") {
			return nil, fmt.Errorf("refused: %s", text)
		}
	default:
		return nil, c.Handle(stop, response)
	}
	return nil, nil
}

func (c *Client) ended(frame *hubv1.Ended) (lost, err error) {
	why := status.FromProto(frame.Status)
	switch {
	case why.Code() == codes.OK:
		delete(c.Table, frame.SubscriptionId)
		if len(c.Table) == 0 {
			c.call.CloseSend() // the hub ends the session
		}
	case !frame.Retry.GetRetry():
		return nil, fmt.Errorf("ended: %s", refusal.Describe(why))
	case frame.Reason != hubv1.EndReason_END_REASON_DRAINING: // else the session ends too
		c.delay = frame.Retry.Delay.AsDuration()
		return errors.New(refusal.Describe(why)), nil
	}
	return nil, nil
}
