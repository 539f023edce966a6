package following

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	hubv1 "switchyard.example/clients/gen/switchyard/v1"
)

// Session is one session with the hub, which takes commands from one goroutine.
type Session struct {
	call grpc.BidiStreamingClient[hubv1.SessionRequest, hubv1.SessionResponse]
}

// Acknowledge says what became of an event, and lets the hub send one more.
func (s *Session) Acknowledge(acknowledge *hubv1.Acknowledge) {
	acknowledge.SubscriptionId = ID
	s.send(&hubv1.SessionRequest{Command: &hubv1.SessionRequest_Acknowledge{Acknowledge: acknowledge}})
	credit := &hubv1.AddCredit{SubscriptionId: ID, Credit: &hubv1.Credit{Events: 1}}
	s.send(&hubv1.SessionRequest{Command: &hubv1.SessionRequest_Credit{Credit: credit}})
}

func (s *Session) send(request *hubv1.SessionRequest) {
	request.RequestId = 1
	s.call.Send(request) // when it fails, Recv tells why
}

// arrival is a frame, or why there will be none.
type arrival struct {
	response *hubv1.SessionResponse
	err      error
}

// attempt is one session. It tells whether the hub took the subscription.
func attempt(stop context.Context, hub hubv1.HubServiceClient, follower Follower) (subscribed bool, err error) {
	// Not made from stop: after that the hub is still to be told.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	call, err := hub.Session(ctx)
	if err != nil {
		return false, sorted(err, 0)
	}
	s := &Session{call}
	subscribe := &hubv1.Subscribe{SubscriptionId: ID, Spec: follower.Spec()}
	s.send(&hubv1.SessionRequest{Command: &hubv1.SessionRequest_Subscribe{Subscribe: subscribe}})

	arrivals := make(chan arrival)
	go func() {
		for {
			response, err := call.Recv()
			select {
			case arrivals <- arrival{response, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	stopped := stop.Done()
	for delay := time.Duration(0); ; {
		select {
		case <-stopped:
			stopped = nil
			unsubscribe := &hubv1.Unsubscribe{SubscriptionId: ID}
			s.send(&hubv1.SessionRequest{Command: &hubv1.SessionRequest_Unsubscribe{Unsubscribe: unsubscribe}})
		case arrived := <-arrivals:
			if errors.Is(arrived.err, io.EOF) {
				return subscribed, &away{errors.New("the hub closed the session"), delay}
			} else if arrived.err != nil {
				return subscribed, sorted(arrived.err, delay)
			}
			switch frame := arrived.response.Frame.(type) {
			case *hubv1.SessionResponse_Subscribed:
				subscribed = true
				log.Print("subscribed")
			case *hubv1.SessionResponse_Draining:
				delay = frame.Draining.ReconnectDelay.AsDuration()
			case *hubv1.SessionResponse_Ended:
				return subscribed, ended(frame.Ended)
			default:
				if err := s.take(stop, follower, arrived.response); err != nil {
					return subscribed, err
				}
			}
		}
	}
}

// take handles a frame that neither begins nor ends anything.
func (s *Session) take(stop context.Context, follower Follower, response *hubv1.SessionResponse) error {
	switch frame := response.Frame.(type) {
	case *hubv1.SessionResponse_Events:
		return follower.Take(stop, s, frame.Events)
	case *hubv1.SessionResponse_Progress:
		return follower.Passed(frame.Progress.ResumeToken)
	case *hubv1.SessionResponse_Acknowledged:
		for _, result := range frame.Acknowledged.Results {
			if result.Status != nil { // too late: somebody else has it by now
				log.Printf("%d: %v", result.Sequence, status.ErrorProto(result.Status))
			}
		}
	case *hubv1.SessionResponse_Error:
		return fmt.Errorf("refused: %w", status.ErrorProto(frame.Error))
	}
	return nil
}
