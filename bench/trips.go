package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	goredis "github.com/redis/go-redis/v9"
)

const tripsName = "round trips"

// operation is something of which the round trips are counted.
type operation struct {
	name string
	do   func(ctx context.Context, c querier, i int64) error
}

const tripsID = 7 // of the row that everything is done with

func operations() []operation {
	return []operation{
		{"hit", func(ctx context.Context, c querier, _ int64) error {
			_, err := c.Item(ctx, tripsID)
			return err
		}},
		{"miss", func(ctx context.Context, c querier, i int64) error {
			_, err := c.Fresh(ctx, tripsID, i)
			return err
		}},
		{"bypassed", func(ctx context.Context, c querier, _ int64) error {
			_, err := c.Volatile(ctx, tripsID)
			return err
		}},
		{"update", func(ctx context.Context, c querier, i int64) error { return c.SetStock(ctx, tripsID, i) }},
		{"update in a transaction", func(ctx context.Context, c querier, i int64) error { return c.SetStockInTx(ctx, tripsID, i) }},
	}
}

// Trips counts the round trips of operations, on wires to PostgreSQL and Redis,
// and prints a table: for which ones the caller waits, in their order, and how
// many there are with those that nobody waits for.
func Trips(ctx context.Context, out io.Writer, redis string, database func() (string, error)) error {
	counted := make(map[string][]tripCount)
	var systems []string
	for _, s := range Systems() {
		if s.Name != "pgx" && (!s.SQL || !s.Remote) {
			continue
		}
		counts, err := tripsOf(ctx, s, redis, database)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", tripsName, s.Name, err)
		}
		counted[s.Name] = counts
		systems = append(systems, s.Name)
	}
	for i, op := range operations() {
		fmt.Fprintf(out, "%s, %s\n  %-20s %24s %13s %10s\n", tripsName, op.name, "", "the caller waits for", "in all: P", "R")
		for _, s := range systems {
			c := counted[s][i]
			fmt.Fprintf(out, "  %-20s %24s %13.2f %10.2f\n", s, c.path, c.postgres, c.redis)
		}
		fmt.Fprintln(out)
	}
	return nil
}

// tripCount is the round trips of one operation: P to PostgreSQL, R to Redis.
type tripCount struct {
	path            string  // the most frequent order of those that the caller waits for
	postgres, redis float64 // the mean of all, with those of the background
}

func tripsOf(ctx context.Context, s System, redis string, database func() (string, error)) (counts []tripCount, err error) {
	dsn, err := database()
	if err != nil {
		return nil, err
	}
	if err := Load(ctx, dsn); err != nil {
		return nil, err
	}
	client, log, closeClient, err := openWired(s, dsn, redis)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeClient()) }()
	for _, op := range operations() {
		c, err := tripsOfOne(ctx, s, client, log, op)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op.name, err)
		}
		counts = append(counts, c)
	}
	return counts, nil
}

func tripsOfOne(ctx context.Context, s System, client *sqlClient, log *tripLog, op operation) (c tripCount, err error) {
	do := func() error { return op.do(ctx, client, counter.Add(1)) }
	// settle returns when nothing of an operation goes on any more: a hit of what
	// was written last shows it.
	settle := func() error {
		i := counter.Add(1)
		if err := client.SetStock(ctx, tripsID, i); err != nil || !s.Cached {
			return err
		}
		return until(ctx, "a hit", func() (bool, error) {
			before := hits(client.db)
			item, err := client.Item(ctx, tripsID)
			return item.Stock == i && hits(client.db) > before, err
		})
	}
	const times = 31
	seen := make(map[string]int)
	for range times {
		if err := settle(); err != nil {
			return c, err
		}
		log.forget()
		if err := do(); err != nil {
			return c, err
		}
		seen[waitedFor(log.String())]++
	}
	// Others than the most frequent come from what goes on meanwhile, such as
	// the renewal of a lease.
	for trips, n := range seen {
		if n > seen[c.path] || n == seen[c.path] && trips < c.path {
			c.path = trips
		}
	}

	const many = 200
	log.forget()
	for range many {
		if err := do(); err != nil {
			return c, err
		}
	}
	// What is left to be done of the last few is missing here: it is not worth a wait.
	trips := log.String()
	c.postgres = float64(strings.Count(trips, "P")) / many
	c.redis = float64(strings.Count(trips, "R")) / many
	return c, nil
}

// waitedFor cuts off what may be on its way to Redis already when a call
// returns: nobody waits for what follows the answer of PostgreSQL.
func waitedFor(trips string) string {
	if last := strings.LastIndexByte(trips, 'P'); last >= 0 {
		return trips[:last+1]
	}
	return trips
}

// openWired opens a system of SQL with a wire to each server.
func openWired(s System, dsn, redis string) (c *sqlClient, log *tripLog, closeAll func() error, err error) {
	log = &tripLog{}
	var wires []*wire
	closeWires := func() {
		for _, w := range wires {
			w.close()
		}
	}
	through := func(name byte, target, server string) string {
		if err != nil {
			return ""
		}
		var w *wire
		if w, err = listen(name, target, log); err != nil {
			return ""
		}
		wires = append(wires, w)
		var url string
		url, err = w.in(server)
		return url
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, nil, nil, err
	}
	options, err := goredis.ParseURL(redis)
	if err != nil {
		return nil, nil, nil, err
	}
	address := net.JoinHostPort(config.Host, fmt.Sprint(config.Port))
	e := Env{DSN: through('P', address, dsn), Redis: through('R', options.Addr, redis)}
	if err != nil {
		closeWires()
		return nil, nil, nil, err
	}
	client, err := s.Open(e)
	if err != nil {
		closeWires()
		return nil, nil, nil, err
	}
	return client.(*sqlClient), log, func() error {
		err := client.Close()
		closeWires()
		return err
	}, nil
}
