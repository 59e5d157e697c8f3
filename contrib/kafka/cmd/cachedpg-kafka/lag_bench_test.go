package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// BenchmarkLag measures how long after a commit in region A has returned region B
// still answers with what was before: half of the commits are heard of sooner
// than "p50-µs". Writer, producer and consumer are processes of their own, and
// each region has its Redis.
func BenchmarkLag(b *testing.B) {
	brokers := map[string]func(*testing.B) (brokers, topic string){
		"fake": func(b *testing.B) (string, string) {
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "events"))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(cluster.Close)
			return strings.Join(cluster.ListenAddrs(), ","), "events"
		},
		"kafka": func(b *testing.B) (string, string) {
			addresses := os.Getenv("CACHEDPG_TEST_KAFKA")
			if addresses == "" {
				b.Skip("CACHEDPG_TEST_KAFKA is not set: this needs Apache Kafka; run `make test-kafka`")
			}
			return addresses, newTopic(b, addresses)
		},
	}
	for _, broker := range []string{"fake", "kafka"} {
		for _, from := range []string{"outbox", "wal"} {
			b.Run(broker+"/"+from, func(b *testing.B) {
				addresses, topic := brokers[broker](b)
				measureLag(b, from, addresses, topic)
			})
		}
	}
}

func newTopic(b *testing.B, brokers string) string {
	b.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	admin, topic := kadm.NewClient(client), fmt.Sprintf("cachedpg-lag-%d", time.Now().UnixNano())
	if _, err := admin.CreateTopic(b.Context(), 3, 1, nil, topic); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if _, err := admin.DeleteTopic(context.Background(), topic); err != nil {
			b.Error(err)
		}
	})
	return topic
}

func measureLag(b *testing.B, from, brokers, topic string) {
	dsn := pgtest.Database(b)
	a, other := regions(b, dsn)
	pgtest.Exec(b, dsn, cachedpg.SetupSQL()+"CREATE TABLE people (id int PRIMARY KEY, city int); INSERT INTO people VALUES (1, 0)")
	if from == "wal" {
		pgtest.Exec(b, dsn, cachedpg.WALSetupSQL)
	}
	child(b, "produce", "--from", from, "--dsn", a, "--brokers", brokers, "--topic", topic)
	child(b, "consume", "--group", topic, "--dsn", other, "--brokers", brokers, "--topic", topic)
	write := writer(b, a)
	reader, err := sql.Open("cachedpg", other)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { reader.Close() })
	read := func() (n int, hit bool) {
		before := cachedpg.StatsOf(reader).Hits
		if err := reader.QueryRow("SELECT city FROM people WHERE id = 1").Scan(&n); err != nil {
			b.Fatal(err)
		}
		return n, cachedpg.StatsOf(reader).Hits > before
	}
	n := 0
	next := func() time.Duration {
		eventually(b, "a hit", func() bool { _, hit := read(); return hit })
		n++
		committed := write(fmt.Sprintf("UPDATE people SET city = %d WHERE id = 1", n))
		for until := time.Now().Add(patience); ; time.Sleep(50 * time.Microsecond) {
			if got, _ := read(); got == n {
				return time.Since(committed)
			}
			if time.Now().After(until) {
				b.Fatalf("not heard of after %v", patience)
			}
		}
	}
	next() // both have connected to everything by then
	var lags []time.Duration
	for b.Loop() {
		lags = append(lags, next())
	}
	slices.Sort(lags)
	b.ReportMetric(float64(lags[len(lags)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(0, "ns/op")
}

// writer starts a process that writes what it is told to, by way of dsn. The
// function returns when it did, as that process saw it.
func writer(b *testing.B, dsn string) func(statement string) time.Time {
	b.Helper()
	cmd := exec.Command(os.Args[0], "writes", dsn)
	cmd.Env, cmd.Stderr = append(os.Environ(), role+"=1"), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	answers := bufio.NewScanner(out)
	return func(statement string) time.Time {
		if _, err := fmt.Fprintln(in, statement); err != nil {
			b.Fatal(err)
		}
		if !answers.Scan() {
			b.Fatalf("the writer has ended: %v", answers.Err())
		}
		nanoseconds, err := strconv.ParseInt(answers.Text(), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		return time.Unix(0, nanoseconds)
	}
}

// writes is the process that writer starts.
func writes(dsn string, in io.Reader, out io.Writer) error {
	db, err := sql.Open("cachedpg", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	for statements := bufio.NewScanner(in); statements.Scan(); {
		if _, err := db.Exec(statements.Text()); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, time.Now().UnixNano()); err != nil {
			return err
		}
	}
	return nil
}
