package following

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	hubv1 "switchyard.example/clients/gen/switchyard/v1"
)

const (
	heartbeat = 15 * time.Second // how long an idle hub may be silent
	connect   = 10 * time.Second // the most until the first frame
)

func (c *Client) send(request *hubv1.SessionRequest) {
	request.RequestId = 1
	c.call.Send(request) // when it fails, Recv says why
}

// begin introduces the client and opens its subscriptions.
func (c *Client) begin() {
	hello := &hubv1.Hello{
		ClientName:        c.Name,
		HeartbeatInterval: durationpb.New(heartbeat),
		PreviousSessionId: c.sessionID,
	}
	c.send(&hubv1.SessionRequest{Command: &hubv1.SessionRequest_Hello{Hello: hello}})
	for id, spec := range c.Table {
		subscribe := &hubv1.Subscribe{SubscriptionId: id, Spec: spec}
		c.send(&hubv1.SessionRequest{Command: &hubv1.SessionRequest_Subscribe{Subscribe: subscribe}})
	}
}

// leave ends the subscriptions, once the frame at hand is handled.
func (c *Client) leave() {
	c.busy.Lock()
	defer c.busy.Unlock()
	for id := range c.Table {
		unsubscribe := &hubv1.Unsubscribe{SubscriptionId: id}
		c.send(&hubv1.SessionRequest{Command: &hubv1.SessionRequest_Unsubscribe{Unsubscribe: unsubscribe}})
	}
}

// Acknowledge says what became of events. Only Handle calls it.
func (c *Client) Acknowledge(acknowledge *hubv1.Acknowledge) {
	c.send(&hubv1.SessionRequest{Command: &hubv1.SessionRequest_Acknowledge{Acknowledge: acknowledge}})
}

// Grant lets the hub send more events. Only Handle calls it.
func (c *Client) Grant(id int64, events int) {
	credit := &hubv1.AddCredit{SubscriptionId: id, Credit: &hubv1.Credit{Events: int64(events)}}
	c.send(&hubv1.SessionRequest{Command: &hubv1.SessionRequest_Credit{Credit: credit}})
}
