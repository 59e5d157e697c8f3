package bench

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/store"
	storeredis "github.com/cachedpg/cachedpg/store/redis"
)

// patience bounds what is waited for before a measurement, such as a lease.
const patience = 30 * time.Second

// until asks again until the condition holds, less and less often.
func until(ctx context.Context, what string, condition func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		if ok, err := condition(); ok || err != nil {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		}
	}
}

// withSettings returns a URL with settings such as "cache_ttl=1s".
func withSettings(dsn string, settings ...string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme == "" {
		return "", errors.New("the DSN of the database must be a URL")
	}
	query := u.Query()
	for _, s := range settings {
		key, value, _ := strings.Cut(s, "=")
		query.Set(key, value)
	}
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// openShared opens cachedpg with its cache in Redis, and waits until it answers
// from there: the first lease may have to wait for transactions of others.
func openShared(e Env, settings ...string) (*sqlClient, error) {
	dsn, err := withSettings(e.DSN, append(settings, "cache_store="+e.Redis)...)
	if err != nil {
		return nil, err
	}
	db, err := openDB("cachedpg", dsn)
	if err != nil {
		return nil, err
	}
	c := &sqlClient{db: db}
	if err := c.awaitHit(context.Background(), 1); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return c, nil
}

// awaitHit returns when a read of the row is a hit.
func (c *sqlClient) awaitHit(ctx context.Context, id int64) error {
	return until(ctx, "a hit", func() (bool, error) {
		before := hits(c.db)
		_, err := c.Item(ctx, id)
		return hits(c.db) > before, err
	})
}

func hits(db *sql.DB) uint64 { return cachedpg.StatsOf(db).Hits }

// mgetClient is a bare MGET by go-redis, of the keys and the bytes that a hit
// of cachedpg asks Redis for: what no cache in Redis can go below.
type mgetClient struct {
	redis *goredis.Client
	keys  [hot + 1][]string // by id
}

// openMGET lets cachedpg fill its cache, listens to what it asks for in a hit
// of each row, and copies that.
func openMGET(e Env) (Client, error) {
	options, err := goredis.ParseURL(e.Redis)
	if err != nil {
		return nil, err
	}
	w, err := listen('R', options.Addr, nil)
	if err != nil {
		return nil, err
	}
	defer w.close()
	through, err := w.in(e.Redis)
	if err != nil {
		return nil, err
	}
	cached, err := openShared(Env{DSN: e.DSN, Redis: through})
	if err != nil {
		return nil, err
	}
	defer cached.Close()
	if err := warm(context.Background(), cached); err != nil {
		return nil, err
	}
	c := &mgetClient{redis: goredis.NewClient(options)}
	for id := int64(1); id <= hot; id++ {
		if err := c.learn(context.Background(), w, cached, id); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// learn copies what a hit of the row reads to keys as long as the original ones.
func (c *mgetClient) learn(ctx context.Context, w *wire, cached *sqlClient, id int64) error {
	return until(ctx, "a hit to copy", func() (bool, error) {
		before := hits(cached.db)
		w.forget()
		if _, err := cached.Item(ctx, id); err != nil {
			return false, err
		}
		keys := w.mget()
		if hits(cached.db) == before || len(keys) == 0 {
			return false, nil
		}
		values, err := c.redis.MGet(ctx, keys...).Result()
		if err != nil {
			return false, err
		}
		own := make([]string, len(keys))
		copies := c.redis.Pipeline()
		for i, key := range keys {
			value, ok := values[i].(string)
			if !ok {
				return false, nil // the lease ran out just now
			}
			own[i] = "measured" + key[len("measured"):]
			copies.Set(ctx, own[i], value, expiry)
		}
		c.keys[id] = own
		_, err = copies.Exec(ctx)
		return err == nil, err
	})
}

func (c *mgetClient) Item(ctx context.Context, id int64) (item Item, err error) {
	values, err := c.redis.MGet(ctx, c.keys[id]...).Result()
	if err != nil {
		return item, err
	}
	for _, v := range values {
		if v == nil {
			return item, errors.New("MGET: a key is gone")
		}
	}
	return item, nil
}

func (c *mgetClient) SetStock(context.Context, int64, int64) error { return errStub }

func (c *mgetClient) Close() error {
	var all []string
	for _, keys := range c.keys {
		all = append(all, keys...)
	}
	var err error
	if len(all) > 0 {
		err = c.redis.Unlink(context.Background(), all...).Err()
	}
	return errors.Join(err, c.redis.Close())
}

// storeClient reads entries from the store alone: no SQL, no database/sql.
type storeClient struct {
	store *storeredis.Store
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

func openStore(e Env) (Client, error) {
	target, err := storeredis.ParseURL(e.Redis)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &storeClient{store: storeredis.Open(target, storeredis.Options{Identity: e.Name}), stop: stop}
	// There is no PostgreSQL here whose writers could be in the way.
	yes := func(context.Context, store.Fresh) (bool, error) { return true, nil }
	err = until(ctx, "a lease", func() (bool, error) { return c.store.Renew(ctx, yes) })
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.wg.Go(func() {
		tick := time.NewTicker(store.Lease / 6)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_, _ = c.store.Renew(ctx, yes) // without a lease Item fails
			}
		}
	})
	return c, nil
}

// Item looks up what the driver looks up: as many tags, an entry as long.
func (c *storeClient) Item(ctx context.Context, id int64) (item Item, err error) {
	const relation, index = 1 << 16, 1<<16 + 1
	var key store.Key
	binary.BigEndian.PutUint64(key[:], uint64(id))
	tags := [...]store.Tag{
		{Kind: store.TagSchema},
		{Relation: relation, Kind: store.TagRow, Index: index, Value: uint64(id)},
		{Relation: relation, Kind: store.TagRows, Index: index},
		{Relation: relation, Kind: store.TagTable},
	}
	var stamps [len(tags)]store.Stamp
	switch _, outcome, err := c.store.Lookup(ctx, key, tags[:], stamps[:]); {
	case err != nil:
		return item, err
	case outcome == store.Hit:
		return item, nil
	case outcome == store.Dirty:
		return item, errors.New("store/redis: a tag is dirty")
	}
	const always = 3 // the table's tag matters to a result without rows
	return item, c.store.Fill(ctx, key, tags[:always], stamps[:always], entryOf(id), expiry)
}

// entryOf returns the entry that the driver makes of the row.
func entryOf(id int64) *store.Entry {
	const int8, text = 20, 25
	e := &store.Entry{
		Columns: []store.Column{
			{Name: "id", Type: int8, TypeSize: 8, TypeModifier: -1, Format: 1},
			{Name: "name", Type: text, TypeSize: -1, TypeModifier: -1},
			{Name: "price", Type: text, TypeSize: -1, TypeModifier: -1},
			{Name: "stock", Type: int8, TypeSize: 8, TypeModifier: -1, Format: 1},
		},
		Rows: 1, Took: 300 * time.Microsecond, Expires: store.Now().Add(expiry),
	}
	data := store.AppendValue(nil, binary.BigEndian.AppendUint64(nil, uint64(id)))
	data = store.AppendValue(data, []byte("item "+strconv.FormatInt(id, 10)))
	data = store.AppendValue(data, []byte(strconv.FormatInt(id, 10)+".99"))
	data = store.AppendValue(data, binary.BigEndian.AppendUint64(nil, 10))
	e.Data = string(data)
	return e
}

func (c *storeClient) SetStock(context.Context, int64, int64) error { return errStub }

func (c *storeClient) Close() error {
	c.stop()
	c.wg.Wait()
	return c.store.Close()
}
