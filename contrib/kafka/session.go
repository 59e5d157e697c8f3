package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// session is one membership in the consumer group, from joining to the first
// error that franz-go does not deal with itself.
type session struct {
	consumer *Consumer
	applier  *applier
	group    string
	commits  bool // another session goes on from where this ends

	// doubts says that what is committed may not be a position in this log: it
	// was cut short, or made anew under its name. The session that finds it out
	// ends, and the next one begins without.
	doubts *atomic.Bool

	client *kgo.Client
	ready  chan struct{} // closed when client is set

	mu    sync.Mutex
	fresh map[int32]kgo.EpochOffset // positions that are to be committed
	wake  context.CancelFunc        // ends a poll that waits for records
}

// run joins, applies and commits until something fails.
func (s *session) run(ctx context.Context) error {
	config := s.consumer.config
	s.ready = make(chan struct{})
	client, err := config.client(
		kgo.ConsumerGroup(s.group),
		kgo.ConsumeTopics(config.Topic),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(sessionTimeout),
		// Never go on from where it is convenient: place decides (K3).
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ConsumeStartOffset(kgo.NoResetOffset().AtEnd()),
		kgo.AdjustFetchOffsetsFn(s.place),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	s.client = client
	close(s.ready)
	if err := config.check(ctx, client); err != nil {
		return err
	}
	for {
		fetches := s.poll(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.take(ctx, fetches); err != nil {
			return err
		}
	}
}

// poll waits for records, an error, or a position to commit.
func (s *session) poll(ctx context.Context) kgo.Fetches {
	polling, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	s.wake = cancel
	if len(s.fresh) > 0 {
		cancel()
	}
	s.mu.Unlock()
	return s.client.PollRecords(polling, pollRecords)
}

// take deals with what was polled.
func (s *session) take(ctx context.Context, fetches kgo.Fetches) error {
	s.commitFresh(ctx)
	if records := fetches.Records(); len(records) > 0 {
		if err := s.apply(ctx, newBatch(records)); err != nil {
			return err
		}
		s.commit(ctx, s.client.CommitUncommittedOffsets)
		s.measure(fetches)
	}

	var problems []error
	for _, e := range fetches.Errors() {
		var group *kgo.ErrGroupSession
		switch {
		case errors.Is(e.Err, context.Canceled): // woken
		case errors.As(e.Err, &group):
			// franz-go joins again, as the same member. A session that ended here could
			// not leave the group, as no broker answers, and the next one would wait
			// until that has given the old member up.
			if err := s.consumer.config.explain(ctx, s.client, e.Err); ctx.Err() == nil {
				s.consumer.failed(err)
			}
		default:
			// The position is out of the log, or records that had one are gone.
			s.doubts.Store(true)
			problems = append(problems, e.Err)
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return s.consumer.config.explain(ctx, s.client, errors.Join(problems...))
}

// apply applies a batch, however long that takes: as long as it is not applied
// nothing behind it is read.
func (s *session) apply(ctx context.Context, b batch) error {
	for wait := (backoff{}); ; {
		err := s.applier.apply(ctx, b)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.consumer.failed(err)
		if !wait.wait(ctx) {
			return ctx.Err()
		}
	}
}

// place says where to read the partitions on that the group gave us.
//
// What lies between a commit and the end of the log is read. Where there is no
// commit, because the group is new, or the partition, or Kafka has forgotten an
// idle group; or where the log begins after it, because nobody read for longer
// than records are kept; or ends before it: there it is not known what was
// missed, so everything is invalidated. The position comes first (K3):
//
//	consumer                        region A
//	everything is invalidated
//	                                event, acknowledged
//	position := end of the log      (… that nobody applies)
func (s *session) place(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	topic := s.consumer.config.Topic
	admin := kadm.NewClient(s.client)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	doubts, fresh := s.doubts.Load(), make(map[int32]kgo.EpochOffset)
	for p, o := range offsets[topic] {
		start, knowsStart := starts.Lookup(topic, p)
		end, knowsEnd := ends.Lookup(topic, p)
		if err := errors.Join(start.Err, end.Err); err != nil || !knowsStart || !knowsEnd {
			return nil, fmt.Errorf("partition %d does not say where it begins and ends: %w", p, err)
		}
		if at := o.EpochOffset().Offset; at >= start.Offset && at <= end.Offset && !doubts {
			continue
		}
		fresh[p] = kgo.EpochOffset{Epoch: -1, Offset: end.Offset}
		offsets[topic][p] = kgo.NewOffset().At(end.Offset)
	}
	if len(fresh) == 0 {
		return offsets, nil
	}
	if err := s.consumer.invalidateAll(ctx, s.applier.db); err != nil {
		return nil, err
	}
	s.doubts.Store(false)
	// A partition in which nothing happens would be without a commit at the next
	// start too.
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fresh == nil {
		s.fresh = fresh
	} else {
		maps.Copy(s.fresh, fresh)
	}
	if s.wake != nil {
		s.wake()
	}
	return offsets, nil
}

// commitFresh commits the positions that place has chosen.
func (s *session) commitFresh(ctx context.Context) {
	s.mu.Lock()
	fresh := s.fresh
	s.fresh = nil
	s.mu.Unlock()
	if len(fresh) > 0 {
		s.commit(ctx, func(ctx context.Context) (failed error) {
			offsets := map[string]map[int32]kgo.EpochOffset{s.consumer.config.Topic: fresh}
			s.client.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
				failed = err
			})
			return failed
		})
	}
}

// commit commits, if that is of use to anyone. One that fails makes the next
// session apply again, which harms nobody.
func (s *session) commit(ctx context.Context, commit func(context.Context) error) {
	if !s.commits || s.applier.ahead {
		return
	}
	committing, cancel := context.WithTimeout(ctx, s.consumer.config.timeout())
	defer cancel()
	if err := commit(committing); err != nil && ctx.Err() == nil {
		s.consumer.failed(fmt.Errorf("cachedpg: kafka: offsets are not committed, so some events will be applied again: %w", err))
	}
}

// measure tells how much is left to read of the partitions that records came of.
func (s *session) measure(fetches kgo.Fetches) {
	var behind int64
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if n := len(p.Records); n > 0 {
			behind += max(p.HighWatermark-p.Records[n-1].Offset-1, 0)
		}
	})
	s.consumer.behind.Store(behind)
}
