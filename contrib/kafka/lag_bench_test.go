package kafka

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// BenchmarkLag is the time from when an event is given to a Producer until the
// Consumer of a region has applied it, with the fake in this process and, where
// CACHEDPG_TEST_KAFKA names one, with a real Kafka.
func BenchmarkLag(b *testing.B) {
	for _, kind := range []string{"fake", "real"} {
		b.Run(kind, func(b *testing.B) {
			var c Config
			switch {
			case kind == "fake":
				c = configOf(fake(b, 1))
			case os.Getenv("CACHEDPG_TEST_KAFKA") == "":
				b.Skip("CACHEDPG_TEST_KAFKA is not set; run scripts/services kafka …")
			default:
				c = real(b, 1, nil)
			}
			r := newRegion(b, pgtest.Redis(b))
			consumer, p := consume(b, r.db, c), producer(b, c)
			eventually(b, "the consumer to begin", func() bool { return consumer.Stats().Cold > 0 })
			var lags []time.Duration
			for b.Loop() {
				before := consumer.Stats().Applied
				began := time.Now()
				send(b, p, r.event())
				for consumer.Stats().Applied < before+2 { // a record for each of its tags
					time.Sleep(20 * time.Microsecond)
				}
				lags = append(lags, time.Since(began))
			}
			slices.Sort(lags)
			b.ReportMetric(float64(lags[len(lags)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(0, "ns/op")
		})
	}
}
