package bench

import (
	"context"
	"errors"
	"fmt"
)

// Env says where the services are.
type Env struct {
	DSN   string // PostgreSQL, a database of the system's own, in which Load has made the table
	Redis string // URL of a Redis server
	Name  string // prefix of keys in Redis
}

// System is one way to read and write rows.
type System struct {
	Name   string
	Open   func(Env) (Client, error)
	Cached bool // it answers repeated reads from a cache
	Remote bool // a hit takes a round trip to Redis
	SQL    bool // its client is a querier
	Late   bool // an update is seen a moment after it returned, not at once
	Bare   bool // it has no database behind it: it only reads, what has been prepared
}

// Systems lists what is measured; doc.go says what each one is.
func Systems() []System {
	return []System{
		{Name: "stub", Bare: true, Open: func(Env) (Client, error) { return openSQL("stub", "") }},
		{Name: "pgx", SQL: true, Open: func(e Env) (Client, error) { return openSQL("pgx", e.DSN) }},
		{Name: "cachedpg", SQL: true, Cached: true, Open: func(e Env) (Client, error) { return openSQL("cachedpg", e.DSN) }},
		{Name: "cachedpg+redis", SQL: true, Cached: true, Remote: true, Open: openStrict},
		{Name: "cachedpg+eventual", SQL: true, Cached: true, Remote: true, Late: true, Open: openEventual},
		{Name: "MGET", Bare: true, Remote: true, Open: openMGET},
		{Name: "store/redis", Bare: true, Remote: true, Open: openStore},
		{Name: "otter", Cached: true, Open: openOtter},
		{Name: "ristretto", Cached: true, Open: openRistretto},
		{Name: "xorm", Cached: true, Open: openXorm},
		{Name: "go-redis/cache", Cached: true, Open: openRedisCache},
		{Name: "go-redis/cache-far", Cached: true, Remote: true, Open: openRedisCacheFar},
		{Name: "go-zero", Cached: true, Remote: true, Open: openZero},
	}
}

func openStrict(e Env) (Client, error) { return openShared(e) }

func openEventual(e Env) (Client, error) { return openShared(e, "cache_consistency=eventual") }

func openSQL(driver, dsn string) (Client, error) {
	db, err := openDB(driver, dsn)
	if err != nil {
		return nil, err
	}
	return &sqlClient{db: db}, nil
}

// check proves that a client works as its system says: an update through it is
// seen, and a repeated read is answered from a cache, or is not.
func check(ctx context.Context, s System, c Client, behind Client) error {
	if s.Bare {
		return nil
	}
	const id = rows // not among the hot rows
	stock := func() (int64, error) {
		item, err := c.Item(ctx, id)
		return item.Stock, err
	}
	if got, err := stock(); err != nil || got != 10 {
		return errors.Join(fmt.Errorf("%s: stock %d at first, want 10", s.Name, got), err)
	}
	for want := int64(11); want < 15; want++ {
		if err := c.SetStock(ctx, id, want); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		got, err := stock()
		if s.Late {
			err = until(ctx, "an update", func() (bool, error) {
				got, err = stock()
				return got == want, err
			})
		}
		if err != nil || got != want {
			return errors.Join(fmt.Errorf("%s: stock %d after an update to %d", s.Name, got, want), err)
		}
	}
	if q, ok := c.(querier); ok {
		if err := checkQueries(ctx, s, q, behind); err != nil {
			return err
		}
	}
	want := int64(99)
	cached := func() (bool, error) {
		for range 1000 {
			if _, err := stock(); err != nil {
				return false, err
			}
		}
		want++
		if err := behind.SetStock(ctx, id, want); err != nil {
			return false, err
		}
		got, err := stock()
		return got != want, err
	}
	if s.Cached {
		// Some systems fill their cache off the caller's path, or once a commit is on disk.
		if err := until(ctx, "a repeated read that is cached", cached); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		return nil
	}
	if got, err := cached(); err != nil || got {
		return errors.Join(fmt.Errorf("%s: repeated reads cached %v, want false", s.Name, got), err)
	}
	return nil
}

// checkQueries proves that Fresh is a miss that is stored, and that Volatile is
// not stored: neither may be measured as the other.
func checkQueries(ctx context.Context, s System, q querier, behind Client) error {
	const id, nonce = rows - 1, -1
	stocks := func() (fresh, volatile int64, err error) {
		a, errA := q.Fresh(ctx, id, nonce)
		b, errB := q.Volatile(ctx, id)
		return a.Stock, b.Stock, errors.Join(errA, errB)
	}
	for range 3 {
		if _, _, err := stocks(); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	if err := behind.SetStock(ctx, id, 99); err != nil {
		return err
	}
	fresh, volatile, err := stocks()
	if err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	if cached := fresh != 99; cached != s.Cached {
		return fmt.Errorf("%s: a query asked again is cached %v, want %v", s.Name, cached, s.Cached)
	}
	if volatile != 99 {
		return fmt.Errorf("%s: a volatile query was answered from a cache", s.Name)
	}
	return nil
}

// warm reads every hot row often enough for every cache to keep it.
func warm(ctx context.Context, c Client) error {
	for range 3 {
		for id := int64(1); id <= hot; id++ {
			if _, err := c.Item(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}
