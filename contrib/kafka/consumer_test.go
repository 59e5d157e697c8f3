package kafka

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

func applied(n int64) func(ConsumerStats) bool {
	return func(s ConsumerStats) bool { return s.Applied == n }
}

// committed returns the group's offset in partition 0; -1 if there is none.
func committed(t *testing.T, c Config) int64 {
	t.Helper()
	offsets, err := kadm.NewClient(client(t, c)).FetchOffsets(t.Context(), c.Group)
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := offsets.Lookup(c.Topic, 0); ok {
		return o.At
	}
	return -1
}

func awaitCommitted(t *testing.T, c Config, want int64) {
	t.Helper()
	eventually(t, "the commit", func() bool { return committed(t, c) == want })
}

func TestAnEventOfAnotherRegionInvalidates(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"memory", "redis"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := name
			if name == "redis" {
				url = pgtest.Redis(t)
			}
			r, config := newRegion(t, url), configOf(fake(t, 3))
			p, c := producer(t, config), consume(t, r.db, config)
			c.started()
			r.warm(1, "Rome")

			e := r.moves(1, "Oslo")
			r.hits(1, "Rome") // stale, until the event is there
			send(t, p, e)
			c.await("the event", applied(2))
			r.misses(1, "Oslo")
			if s := c.Stats(); s.Lag <= 0 || s.Cold != 1 || s.Errors != 0 || s.Records != 2 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Redelivery and another order do no harm: an event only invalidates.
func TestEventsAgainAndInAnotherOrder(t *testing.T) {
	t.Parallel()
	r, config := newRegion(t, "memory"), configOf(fake(t, 3))
	p, c := producer(t, config), consume(t, r.db, config)
	c.started()
	first, second := r.moves(1, "Oslo"), r.moves(1, "Bern")
	send(t, p, second)
	send(t, p, first)
	c.await("both", applied(4))
	r.warm(1, "Bern")
	send(t, p, first)
	c.await("the first again", applied(6))
	r.misses(1, "Bern")
}

func TestAConsumerGoesOnFromWhatItCommitted(t *testing.T) {
	t.Parallel()
	r, config := newRegion(t, pgtest.Redis(t)), configOf(fake(t, 1))
	p, c := producer(t, config), consume(t, r.db, config)
	c.started()
	// Nothing has been read yet, and the position is known all the same.
	awaitCommitted(t, config, 0)
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
	if s := c.Stats(); s.Cold != 0 {
		t.Errorf("everything was invalidated: %+v", s)
	}
}

// K2: what could not be applied is not committed, also when the process ends.
func TestNothingIsCommittedBeforeItIsApplied(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := server.Proxy()
	r, config := newRegion(t, server.URLThrough(proxy)), configOf(fake(t, 1))
	p, c := producer(t, config), consume(t, r.db, config)
	c.started()
	awaitCommitted(t, config, 0)
	r.warm(1, "Rome")

	proxy.Cut()
	send(t, p, r.moves(1, "Oslo"))
	c.await("an error", func(s ConsumerStats) bool { return s.Errors > 0 })
	c.stop()
	if at, s := committed(t, config), c.Stats(); at != 0 || s.Applied != 0 {
		t.Errorf("committed up to %d without the store: %+v", at, s)
	}
	proxy.Restore()
	c = consume(t, r.db, config)
	c.await("the event", applied(2))
	awaitCommitted(t, config, 2)
	r.warm(1, "Oslo")
}

// A process that dies between applying and committing has it applied again.
func TestWhatWasAppliedAndNotCommittedIsAppliedAgain(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	r, config := newRegion(t, pgtest.Redis(t)), configOf(cluster)
	p, c := producer(t, config), consume(t, r.db, config)
	c.started()
	awaitCommitted(t, config, 0)
	cluster.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return nil, errors.New("the connection is cut"), true
	})
	send(t, p, r.moves(1, "Oslo"))
	c.await("the event", applied(2))
	c.stop()
	cluster.ControlKey(int16(kmsg.OffsetCommit), nil)
	if at := committed(t, config); at != 0 {
		t.Fatalf("committed up to %d", at)
	}
}

func TestAConsumerThatWasAwayTooLongInvalidatesEverything(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	r, config := newRegion(t, pgtest.Redis(t)), configOf(cluster)
	p, c := producer(t, config), consume(t, r.db, config)
	c.started()
	awaitCommitted(t, config, 0)
	r.warm(1, "Rome")
	c.stop()

	send(t, p, r.moves(1, "Oslo"))
	if err := cluster.DeleteRecords(topic, 0, 1); err != nil { // as retention does
		t.Fatal(err)
	}
	r.hits(1, "Rome")
	c = consume(t, r.db, config)
	c.started()
	r.misses(1, "Oslo")
	awaitCommitted(t, config, 2)
	r.warm(1, "Oslo")
	send(t, p, r.moves(1, "Bern"))
	c.await("an event after it", applied(2))
	r.misses(1, "Bern")
}

// A topic made anew under its name begins at 0; what was committed may lie in it
// again.
func TestATopicThatIsMadeAnewInvalidatesEverything(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	r, config := newRegion(t, pgtest.Redis(t)), configOf(cluster)
	c := consume(t, r.db, config)
	c.started()
	send(t, producer(t, config), r.moves(1, "Oslo"))
	c.await("an event", applied(2))
	r.warm(1, "Oslo")

	if err := cluster.DeleteTopic(topic); err != nil {
		t.Fatal(err)
	}
	if err := cluster.CreateTopic(topic, 1, nil); err != nil {
		t.Fatal(err)
	}
	p := producer(t, config) // an older one holds on to the topic that is gone
	send(t, p, r.moves(1, "Bern"))
	c.await("everything", func(s ConsumerStats) bool { return s.Cold == 2 })
	r.warm(1, "Bern")
	send(t, p, r.moves(1, "Rome"))
	c.await("an event after it", applied(4))
	r.misses(1, "Rome")
}

// A log that was cut short while it was read may have grown again beyond what is
// committed, so that only the one who read it knows.
func TestAPositionThatIsOutOfTheLogInvalidatesEverything(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	r, config := newRegion(t, pgtest.Redis(t)), configOf(cluster)
	p, c := producer(t, config), consume(t, r.db, config)
	c.started()
	send(t, p, r.event())
	c.await("an event", applied(2))
	awaitCommitted(t, config, 2)
	r.warm(1, "Rome")

	cluster.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
		fetch := request.(*kmsg.FetchRequest)
		response := fetch.ResponseKind().(*kmsg.FetchResponse)
		for _, t := range fetch.Topics {
			topic := kmsg.NewFetchResponseTopic()
			topic.Topic, topic.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				partition := kmsg.NewFetchResponseTopicPartition()
				partition.Partition, partition.ErrorCode = p.Partition, kerr.OffsetOutOfRange.Code
				topic.Partitions = append(topic.Partitions, partition)
			}
			response.Topics = append(response.Topics, topic)
		}
		return response, nil, true // and then it is no more in control
	})
	send(t, p, r.moves(1, "Oslo")) // ends the Fetch that waits
	c.await("everything", func(s ConsumerStats) bool { return s.Cold == 2 })
	r.warm(1, "Oslo")
	awaitCommitted(t, config, 4)
	if err := c.first(); !strings.Contains(err.Error(), "raise the topic's retention.ms") {
		t.Error(err)
	}
}

// K3: the other way round, an event between the two would be lost.
func TestThePositionIsKnownBeforeEverythingIsInvalidated(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	r, config := newRegion(t, "memory"), configOf(cluster)
	var c atomic.Pointer[running]
	var asked, tooLate atomic.Int64
	running := make(chan struct{})
	cluster.ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		<-running
		asked.Add(1)
		tooLate.Add(c.Load().Stats().Cold)
		return nil, nil, false
	})
	c.Store(consume(t, r.db, config))
	close(running)
	c.Load().started()
	if asked.Load() < 2 || tooLate.Load() != 0 {
		t.Errorf("%d questions for a position, %d after everything was invalidated", asked.Load(), tooLate.Load())
	}
}

// K4
func TestWhatCannotBeReadInvalidatesEverything(t *testing.T) {
	t.Parallel()
	r, config := newRegion(t, "memory"), configOf(fake(t, 1))
	p, c := producer(t, config), consume(t, r.db, config)
	c.started()
	raw := client(t, config)
	tag := " 0000000101000000000000000000000000"
	tests := []struct{ name, key, value string }{
		{"neither key nor value", "", ""},
		{"another format", "\x00\x01\x02", "\xff"},
		{"a tag cut short", r.source + " 00000001", `{"v":1}`},
		{"a value that is none", r.source + tag, `{`},
		{"a value without a version", r.source + tag, `{}`},
		{"a later version", r.source + tag, `{"v":2,"id":"x"}`},
	}
	for i, tt := range tests {
		r.warm(1, "Rome")
		if err := raw.ProduceSync(t.Context(), &kgo.Record{Key: []byte(tt.key), Value: []byte(tt.value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		c.await(tt.name, func(s ConsumerStats) bool { return s.Unreadable == int64(i+1) })
		r.misses(1, "Rome")
	}
	if s := c.Stats(); s.Cold != int64(len(tests)+1) {
		t.Errorf("%+v", s)
	}
	// It goes on behind it.
	r.warm(1, "Rome")
	send(t, p, r.moves(1, "Oslo"))
	c.await("an event after it", applied(2))
	r.misses(1, "Oslo")
}

// Otherwise who writes nonsense would have a consumer do nothing else.
func TestManyThatCannotBeReadInvalidateOnce(t *testing.T) {
	t.Parallel()
	r, config := newRegion(t, pgtest.Redis(t)), configOf(fake(t, 1))
	c := consume(t, r.db, config)
	c.started()
	awaitCommitted(t, config, 0)
	c.stop()
	var nonsense []*kgo.Record
	for range pollRecords {
		nonsense = append(nonsense, &kgo.Record{Value: []byte("nonsense")})
	}
	if err := client(t, config).ProduceSync(t.Context(), nonsense...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	c = consume(t, r.db, config)
	c.await("all", func(s ConsumerStats) bool { return s.Unreadable == pollRecords })
	if s := c.Stats(); s.Cold > pollRecords/100 {
		t.Errorf("%+v", s)
	}
	if at := committed(t, config); at != pollRecords {
		awaitCommitted(t, config, pollRecords)
	}
}

func TestEventsOfOtherDatabasesAreLeftAlone(t *testing.T) {
	t.Parallel()
	r, config := newRegion(t, "memory"), configOf(fake(t, 1))
	p, c := producer(t, config), consume(t, r.db, config)
	c.started()
	r.warm(1, "Rome")
	other := r.event()
	other.Source = "1/00000001/5"
	send(t, p, other)
	c.await("it", func(s ConsumerStats) bool { return s.Others == 2 })
	r.hits(1, "Rome")
	raw := client(t, config)
	if err := raw.ProduceSync(t.Context(), &kgo.Record{Key: []byte("1/00000001/5 0000000101000000000000000000000000"), Value: []byte("{")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	c.await("nonsense of it", func(s ConsumerStats) bool { return s.Others == 3 })
	r.hits(1, "Rome")
	if s := c.Stats(); s.Applied != 0 || s.Cold != 1 {
		t.Errorf("%+v", s)
	}
}

// What is of the timeline that a promotion begins may concern this region as
// soon as it reaches the new server: it is not committed as dealt with.
func TestEventsOfALaterTimelineAreKept(t *testing.T) {
	t.Parallel()
	r, config := newRegion(t, pgtest.Redis(t)), configOf(fake(t, 1))
	p, c := producer(t, config), consume(t, r.db, config)
	c.started()
	awaitCommitted(t, config, 0)
	part := strings.Split(r.source, "/")
	promoted := r.event()
	promoted.Source = strings.Join(append([]string{part[0], "FFFFFFFF"}, part[2:]...), "/")
	send(t, p, promoted, r.moves(1, "Oslo"))
	c.await("both", func(s ConsumerStats) bool { return s.Others == 2 && s.Applied == 2 })
	c.stop()
	if at := committed(t, config); at != 0 {
		t.Errorf("committed up to %d", at)
	}
	// That the region reaches the new server is found out by asking again.
	a := &applier{consumer: c.Consumer, db: r.db, source: strings.Join(append([]string{part[0], "00000000"}, part[2:]...), "/"), ahead: true}
	if err := a.apply(t.Context(), newBatch(nil)); err != nil || !a.ahead {
		t.Errorf("asked without a reason: %v", err)
	}
	r.warm(1, "Oslo")
	a.source = ""
	if err := a.apply(t.Context(), newBatch(nil)); err != nil || a.ahead || a.source != r.source {
		t.Errorf("%v, %+v", err, a)
	}
	r.misses(1, "Oslo")
}

func TestLaterLivesOfADatabase(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"7/00000002/1.5/app/5", "7/00000001/1.5/app/5", true},
		{"7/0000000A/1.5/app/5", "7/00000009/1.5/app/5", true},
		{"7/00000001/1.6/app/5", "7/00000001/1.5/app/5", true},
		{"7/00000001/10.5/app/5", "7/00000001/9.5/app/5", true},
		{"7/00000001/1.5/old/5", "7/00000001/1.4/app/5", true},
		{"7/00000001/1.5/app/5", "7/00000001/1.5/app/5", false},
		{"7/00000001/1.6/app/5", "7/00000002/1.5/app/5", false},
		{"7/00000001/1.4/app/5", "7/00000001/1.5/app/5", false},
		{"8/00000002/1.5/app/5", "7/00000001/1.5/app/5", false},
		{"7/00000002/1.5/app/6", "7/00000001/1.5/app/5", false},
		{"", "7/00000001/1.5/app/5", false},
		{"7/00000002/1.5/app/5", "", false},
	} {
		if got := later(tt.a, tt.b); got != tt.want {
			t.Errorf("later(%q, %q) = %t", tt.a, tt.b, got)
		}
	}
}

// A compacted topic keeps the newest record of each tag, and that is enough.
func TestACompactedTopicIsEnough(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	compact, small := "compact", "64"
	if err := cluster.CreateTopic(topic, 1, map[string]string{"cleanup.policy": compact, "segment.bytes": small, "min.cleanable.dirty.ratio": "0"}); err != nil {
		t.Fatal(err)
	}
	r, config := newRegion(t, pgtest.Redis(t)), configOf(cluster)
	p, c := producer(t, config), consume(t, r.db, config)
	c.started()
	awaitCommitted(t, config, 0)
	r.warm(1, "Rome")
	c.stop()
	// The fake moves the begin of the log when its first record goes, which Kafka does not.
	first := r.event()
	first.Tags = []store.Tag{{Relation: 1, Kind: store.TagTable}}
	send(t, p, first)
	for range 20 {
		send(t, p, r.event())
	}
	send(t, p, r.moves(1, "Oslo"))
	cluster.Compact()
	c = consume(t, r.db, config)
	awaitCommitted(t, config, 43)
	if s := c.Stats(); s.Cold != 0 || s.Applied == 0 || s.Applied == 43 {
		t.Errorf("%+v", s)
	}
	r.misses(1, "Oslo")
}

func TestConsumersOfARegionShareTheWork(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 4)
	r, config := newRegion(t, pgtest.Redis(t)), configOf(cluster)
	p, a := producer(t, config), consume(t, r.db, config)
	a.started()
	awaitCommitted(t, config, 0)
	b := consume(t, r.db, config)
	if _, err := cluster.WaitGroupStable(t.Context(), config.Group, 2); err != nil {
		t.Fatal(err)
	}
	const n = 50
	for range n {
		send(t, p, r.event())
	}
	both := func() int64 { return a.Stats().Applied + b.Stats().Applied }
	eventually(t, "all events", func() bool { return both() >= 2*n })
	a.stop() // its partitions go to the other
	r.warm(1, "Rome")
	sent := both()
	send(t, p, r.moves(1, "Oslo"))
	eventually(t, "an event for the one that is left", func() bool { return both() >= sent+2 })
	r.misses(1, "Oslo")
	if s := b.Stats(); s.Cold != 0 {
		t.Errorf("a partition that changed hands has made everything cold: %+v", s)
	}
}

// One that left and joined as another would wait for itself when the broker that
// it could not tell so is back.
func TestAConsumerStaysAMemberThroughErrorsOfItsGroup(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	r, config := newRegion(t, pgtest.Redis(t)), configOf(cluster)
	config.Options = []kgo.Opt{kgo.HeartbeatInterval(20 * time.Millisecond)}
	var joins, others, left, broken atomic.Int64
	var member atomic.Value
	cluster.Control(func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		switch r := request.(type) {
		case *kmsg.JoinGroupRequest:
			joins.Add(1)
			if known := member.Load(); known != nil && r.MemberID != known {
				others.Add(1)
			}
			if r.SessionTimeoutMillis != int32(sessionTimeout/time.Millisecond) {
				t.Errorf("a session timeout of %d ms", r.SessionTimeoutMillis)
			}
		case *kmsg.LeaveGroupRequest:
			left.Add(1)
		case *kmsg.HeartbeatRequest:
			member.Store(r.MemberID)
			if broken.Load() > 0 {
				broken.Add(-1)
				return nil, errors.New("the connection is cut"), true
			}
		}
		return nil, nil, false
	})
	p, c := producer(t, config), consume(t, r.db, config)
	c.started()
	awaitCommitted(t, config, 0)
	r.warm(1, "Rome")
	eventually(t, "a heartbeat", func() bool { return member.Load() != nil })
	before := joins.Load()
	broken.Store(50)
	c.await("an error", func(s ConsumerStats) bool { return s.Errors > 0 })
	broken.Store(0)
	eventually(t, "it to join again", func() bool { return joins.Load() > before })
	send(t, p, r.moves(1, "Oslo"))
	c.await("the event", applied(2))
	r.misses(1, "Oslo")
	if left.Load() != 0 || others.Load() != 0 {
		t.Errorf("left %d times, joined %d times as another", left.Load(), others.Load())
	}
	if s := c.Stats(); s.Cold != 1 {
		t.Errorf("%+v", s)
	}
}

func TestAConsumerWaitsForItsBroker(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
	if err != nil {
		t.Fatal(err)
	}
	r, config := newRegion(t, "memory"), configOf(cluster)
	cluster.Close()
	c := consume(t, r.db, config)
	c.await("an error", func(s ConsumerStats) bool { return s.Errors > 0 })
	if err := c.first(); !strings.Contains(err.Error(), "answers: is one running") {
		t.Error(err)
	}
	fake(t, 1, kfake.Ports(port(t, config.Brokers[0])))
	c.started()
	r.warm(1, "Rome")
	send(t, producer(t, config), r.moves(1, "Oslo"))
	c.await("the event", applied(2))
	r.misses(1, "Oslo")
}

func TestAConsumerRefusesWhatItCannotDoForever(t *testing.T) {
	t.Parallel()
	_, err := NewConsumer(Config{Brokers: []string{"localhost:1"}, Topic: "x"})
	if err == nil || !strings.Contains(err.Error(), "Group is empty") {
		t.Errorf("without a group: %v", err)
	}
	c, err := NewConsumer(Config{Brokers: []string{"localhost:1"}, Topic: "x", Group: "b"})
	if err != nil {
		t.Fatal(err)
	}
	dsn := pgtest.Database(t)
	if err := c.Run(t.Context(), open(t, "pgx", dsn)); err == nil {
		t.Error("it applies to a DB of another driver")
	}
	off := open(t, "cachedpg", withKey(dsn, "cache_store", "off"))
	if err := c.Run(t.Context(), off); err == nil || !strings.Contains(err.Error(), "cache_store") {
		t.Errorf("without a store: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ended, open(t, "cachedpg", dsn)); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}
