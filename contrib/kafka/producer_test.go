package kafka

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

var anEvent = invalidation.Event{Source: "7/00000001/5", ID: "1", Tags: []store.Tag{{Kind: store.TagSchema}, {Relation: 1, Kind: store.TagTable}}}

// sent reads what the topic has.
func sent(t *testing.T, c Config, n int) []*kgo.Record {
	t.Helper()
	cl := client(t, c, kgo.ConsumeTopics(c.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var records []*kgo.Record
	for len(records) < n {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

func TestSendReturnsWhenAllReplicasHaveTheEvents(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 2)
	var acks []int16
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		acks = append(acks, r.(*kmsg.ProduceRequest).Acks)
		return nil, nil, false
	})
	c := configOf(cluster)
	p := producer(t, c)
	send(t, p, anEvent)
	send(t, p)
	if got := sent(t, c, 2); len(got) != 2 {
		t.Errorf("got %d records, want 2", len(got))
	}
	for _, a := range acks {
		if a != -1 {
			t.Errorf("acks=%d", a)
		}
	}
	if len(acks) == 0 {
		t.Error("nothing was produced")
	}
	if got, want := p.Stats(), (ProducerStats{Events: 1, Records: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// K1: who gets an error sends all of it again, also when a part arrived.
func TestSendFailsUnlessAllIsAcknowledged(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		reply func(*kmsg.ProduceRequest) (kmsg.Response, error, bool)
		want  string
	}{
		{"too few replicas", fails(kerr.NotEnoughReplicas), "too few replicas"},
		{"no right", fails(kerr.TopicAuthorizationFailed), "lacks the right"},
		{"the answer is lost", func(*kmsg.ProduceRequest) (kmsg.Response, error, bool) {
			return nil, errors.New("the connection is cut"), true
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 2)
			broken := true // the control function is called by one goroutine, and not while no request is under way
			cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				if !broken {
					return nil, nil, false
				}
				return tt.reply(r.(*kmsg.ProduceRequest))
			})
			c := configOf(cluster)
			p := producer(t, c)
			began := time.Now()
			err := p.Send(t.Context(), []invalidation.Event{anEvent})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if took := time.Since(began); took > 2*DefaultTimeout {
				t.Errorf("it took %v", took)
			}
			if s := p.Stats(); s.Errors != 1 || s.Events != 0 {
				t.Errorf("%+v", s)
			}
			broken = false
			send(t, p, anEvent)
			sent(t, c, 2)
		})
	}
}

// fails answers that all partitions of a request fail.
func fails(with *kerr.Error) func(*kmsg.ProduceRequest) (kmsg.Response, error, bool) {
	return func(r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
		response := r.ResponseKind().(*kmsg.ProduceResponse)
		for _, t := range r.Topics {
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic, topic.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				partition := kmsg.NewProduceResponseTopicPartition()
				partition.Partition, partition.ErrorCode = p.Partition, with.Code
				topic.Partitions = append(topic.Partitions, partition)
			}
			response.Topics = append(response.Topics, topic)
		}
		return response, nil, true
	}
}

func TestABrokerThatIsDown(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
	if err != nil {
		t.Fatal(err)
	}
	c := configOf(cluster)
	c.Timeout = time.Second
	p := producer(t, c)
	send(t, p, anEvent)
	cluster.Close()
	for call, err := range map[string]error{"Check": p.Check(t.Context()), "Send": p.Send(t.Context(), []invalidation.Event{anEvent})} {
		if want := "no broker of " + c.Brokers[0] + " answers"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", call, err, want)
		}
	}
	fake(t, 1, kfake.Ports(port(t, c.Brokers[0])))
	eventually(t, "a Send", func() bool { return p.Send(t.Context(), []invalidation.Event{anEvent}) == nil })
	sent(t, c, 2)
}

func TestATopicThatIsMissing(t *testing.T) {
	t.Parallel()
	c := configOf(fake(t, 1))
	c.Topic = "missing"
	p := producer(t, c)
	for call, err := range map[string]error{"Check": p.Check(t.Context()), "Send": p.Send(t.Context(), []invalidation.Event{anEvent})} {
		if want := "kafka-topics.sh --create --topic missing"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", call, err, want)
		}
	}
}

func TestSendEndsWithItsContext(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	asked := make(chan struct{}, 10)
	release := make(chan struct{})
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		asked <- struct{}{}
		cluster.SleepControl(func() { <-release })
		return nil, nil, false
	})
	p := producer(t, configOf(cluster))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Send(ctx, []invalidation.Event{anEvent}) }()
	<-asked
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Error("Send does not end")
	}
	close(release)
}
