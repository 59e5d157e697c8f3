package kafka

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

// These ask a real Kafka what the others ask the fake one, where the two might
// differ. They are skipped without CACHEDPG_TEST_KAFKA.

func TestKafkaGoesOnFromWhatWasCommitted(t *testing.T) {
	t.Parallel()
	config := real(t, 1, nil)
	r := newRegion(t, pgtest.Redis(t))
	p, c := producer(t, config), consume(t, r.db, config)
	if err := p.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.started()
	awaitCommitted(t, config, 0)
	r.warm(1, "Rome")
	send(t, p, r.moves(1, "Oslo"))
	c.await("the event", applied(2))
	awaitCommitted(t, config, 2)
	r.warm(1, "Oslo")
	r.warm(2, "Rome")
	c.stop()

	send(t, p, r.moves(1, "Bern"))
	r.hits(1, "Oslo")
	c = consume(t, r.db, config)
	c.await("what was sent meanwhile", applied(2))
	r.misses(1, "Bern")
	awaitCommitted(t, config, 4)

	if err := client(t, config).ProduceSync(t.Context(), &kgo.Record{Value: []byte("nonsense")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	c.await("what cannot be read", func(s ConsumerStats) bool { return s.Unreadable == 1 })
	awaitCommitted(t, config, 5)
	if s := c.Stats(); s.Cold != 1 {
		t.Errorf("want everything invalidated once, for what cannot be read: %+v", s)
	}
}

func TestKafkaHasForgottenWhatWasMissed(t *testing.T) {
	t.Parallel()
	config := real(t, 1, nil)
	r := newRegion(t, pgtest.Redis(t))
	p, c := producer(t, config), consume(t, r.db, config)
	c.started()
	awaitCommitted(t, config, 0)
	r.warm(1, "Rome")
	c.stop()

	send(t, p, r.moves(1, "Oslo"))
	deleted, err := kadm.NewClient(client(t, config)).DeleteRecords(t.Context(), kadm.Offsets{config.Topic: {0: {Topic: config.Topic, At: 1}}})
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	r.hits(1, "Rome")
	c = consume(t, r.db, config)
	c.started()
	r.misses(1, "Oslo")
	awaitCommitted(t, config, 2)
}

func TestKafkaWithATopicMadeAnew(t *testing.T) {
	t.Parallel()
	config := real(t, 1, nil)
	r := newRegion(t, pgtest.Redis(t))
	p, c := producer(t, config), consume(t, r.db, config)
	c.started()
	send(t, p, r.moves(1, "Oslo"))
	c.await("an event", applied(2))
	r.warm(1, "Oslo")

	admin := kadm.NewClient(client(t, config))
	if _, err := admin.DeleteTopic(t.Context(), config.Topic); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the topic again", func() bool {
		_, err := admin.CreateTopic(t.Context(), 1, 1, nil, config.Topic)
		return err == nil
	})
	e := r.moves(1, "Bern")
	eventually(t, "a Send to the new topic", func() bool { return p.Send(t.Context(), []invalidation.Event{e}) == nil })
	c.await("everything to be invalidated again", func(s ConsumerStats) bool { return s.Cold > 1 })
	r.warm(1, "Bern")
	e = r.moves(1, "Rome")
	before := c.Stats().Applied
	send(t, p, e)
	c.await("an event after it", func(s ConsumerStats) bool { return s.Applied >= before+2 })
	r.misses(1, "Rome")
}

func TestKafkaSharesTheWorkOfARegion(t *testing.T) {
	t.Parallel()
	config := real(t, 4, nil)
	r := newRegion(t, pgtest.Redis(t))
	p, a := producer(t, config), consume(t, r.db, config)
	a.started()
	awaitCommitted(t, config, 0)
	b := consume(t, r.db, config)
	groups := kadm.NewClient(client(t, config))
	const n = 50
	for range n { // while the partitions change hands
		send(t, p, r.event())
	}
	eventually(t, "two members", func() bool {
		described, err := groups.DescribeGroups(t.Context(), config.Group)
		g := described[config.Group]
		return err == nil && g.State == "Stable" && len(g.Members) == 2
	})
	both := func() int64 { return a.Stats().Applied + b.Stats().Applied }
	eventually(t, "all events", func() bool { return both() >= 2*n })
	a.stop()
	r.warm(1, "Rome")
	sent := both()
	send(t, p, r.moves(1, "Oslo"))
	eventually(t, "an event for the one that is left", func() bool { return both() >= sent+2 })
	r.misses(1, "Oslo")
	if s := b.Stats(); s.Cold != 0 {
		t.Errorf("a partition that changed hands has made everything cold: %+v", s)
	}
}

func TestKafkaCompactsWhatWasMissed(t *testing.T) {
	t.Parallel()
	value := func(s string) *string { return &s }
	config := real(t, 1, map[string]*string{"cleanup.policy": value("compact"), "segment.ms": value("100"),
		"min.cleanable.dirty.ratio": value("0.001"), "max.compaction.lag.ms": value("100")})
	r := newRegion(t, pgtest.Redis(t))
	p, c := producer(t, config), consume(t, r.db, config)
	c.started()
	awaitCommitted(t, config, 0)
	r.warm(1, "Rome")
	c.stop()

	const n = 30
	send(t, p, r.moves(1, "Oslo"))
	for i := range n {
		e := r.event()
		e.ID = fmt.Sprint(i)
		send(t, p, e)
	}
	// The segment in which Kafka writes is not compacted. That which a record of
	// its own key begins later is; and the first offset stays where it was.
	last := r.event()
	last.Tags = []store.Tag{{Relation: 1, Kind: store.TagTable}}
	eventually(t, "compaction", func() bool {
		send(t, p, last)
		return countRecords(t, config) < n
	})
	c = consume(t, r.db, config)
	c.await("what compaction has left", func(s ConsumerStats) bool { return s.Applied > 0 && s.Behind == 0 })
	r.misses(1, "Oslo")
	if s := c.Stats(); s.Cold != 0 || s.Applied >= 2*n {
		t.Errorf("%+v", s)
	}
}

// countRecords reads the topic from its begin to its end.
func countRecords(t *testing.T, c Config) (n int) {
	t.Helper()
	cl := client(t, c, kgo.ConsumeTopics(c.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer cl.Close()
	for {
		fetches := cl.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		end := false
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			n += len(p.Records)
			end = end || len(p.Records) > 0 && p.Records[len(p.Records)-1].Offset+1 >= p.HighWatermark
		})
		if end {
			return n
		}
	}
}

func TestKafkaWithoutTheTopic(t *testing.T) {
	t.Parallel()
	config := real(t, 1, nil)
	config.Topic += "-missing"
	p := producer(t, config)
	for call, err := range map[string]error{"Check": p.Check(t.Context()), "Send": p.Send(t.Context(), []invalidation.Event{anEvent})} {
		if want := "kafka-topics.sh --create"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", call, err, want)
		}
	}
	c := consume(t, newRegion(t, "memory").db, config)
	c.await("an error", func(s ConsumerStats) bool { return s.Errors > 0 })
	if err := c.first(); !strings.Contains(err.Error(), "kafka-topics.sh --create") {
		t.Error(err)
	}
}
