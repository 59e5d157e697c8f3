package bench

import (
	"context"
	"database/sql"
	"strconv"
	"time"

	"github.com/dgraph-io/ristretto/v2"
	rediscache "github.com/go-redis/cache/v9"
	"github.com/maypok86/otter/v2"
	goredis "github.com/redis/go-redis/v9"
	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/core/stores/cache"
	zeroredis "github.com/zeromicro/go-zero/core/stores/redis"
	"github.com/zeromicro/go-zero/core/stores/sqlc"
	"github.com/zeromicro/go-zero/core/stores/sqlx"
	"xorm.io/xorm"
	"xorm.io/xorm/caches"
)

// expiry is long enough that no entry expires while it is measured.
const expiry = time.Hour

// otterClient is cache-aside by hand, with otter's loading Get, which also
// keeps concurrent misses of one key from asking the database twice.
type otterClient struct {
	sqlClient
	cache *otter.Cache[int64, Item]
}

func openOtter(e Env) (Client, error) {
	db, err := openDB("pgx", e.DSN)
	if err != nil {
		return nil, err
	}
	cache, err := otter.New(&otter.Options[int64, Item]{
		MaximumSize:      rows,
		ExpiryCalculator: otter.ExpiryWriting[int64, Item](expiry),
	})
	if err != nil {
		return nil, err
	}
	return onlyClient{&otterClient{sqlClient{db}, cache}}, nil
}

func (c *otterClient) Item(ctx context.Context, id int64) (Item, error) {
	return c.cache.Get(ctx, id, otter.LoaderFunc[int64, Item](c.sqlClient.Item))
}

func (c *otterClient) SetStock(ctx context.Context, id, stock int64) error {
	err := c.sqlClient.SetStock(ctx, id, stock)
	c.cache.Invalidate(id)
	return err
}

// ristrettoClient is cache-aside by hand, as most programs write it.
type ristrettoClient struct {
	sqlClient
	cache *ristretto.Cache[int64, Item]
}

func openRistretto(e Env) (Client, error) {
	db, err := openDB("pgx", e.DSN)
	if err != nil {
		return nil, err
	}
	cache, err := ristretto.NewCache(&ristretto.Config[int64, Item]{
		NumCounters: 1e7,
		MaxCost:     1 << 30,
		BufferItems: 64,
	})
	if err != nil {
		return nil, err
	}
	return onlyClient{&ristrettoClient{sqlClient{db}, cache}}, nil
}

func (c *ristrettoClient) Item(ctx context.Context, id int64) (Item, error) {
	if item, ok := c.cache.Get(id); ok {
		return item, nil
	}
	item, err := c.sqlClient.Item(ctx, id)
	if err == nil {
		c.cache.SetWithTTL(id, item, 1, expiry)
	}
	return item, err
}

func (c *ristrettoClient) SetStock(ctx context.Context, id, stock int64) error {
	err := c.sqlClient.SetStock(ctx, id, stock)
	c.cache.Del(id)
	// Without it a Set that is still in ristretto's buffer could follow the Del.
	c.cache.Wait()
	return err
}

func (c *ristrettoClient) Close() error {
	c.cache.Close()
	return c.sqlClient.Close()
}

// xormClient uses the cache that is part of the ORM.
type xormClient struct{ engine *xorm.Engine }

type xormItem struct {
	ID    int64  `xorm:"pk 'id'"`
	Name  string `xorm:"'name'"`
	Price string `xorm:"'price'"`
	Stock int64  `xorm:"'stock'"`
}

func (xormItem) TableName() string { return "item" }

func openXorm(e Env) (Client, error) {
	engine, err := xorm.NewEngine("pgx", e.DSN)
	if err != nil {
		return nil, err
	}
	engine.SetMaxOpenConns(maxConns)
	engine.SetMaxIdleConns(maxConns)
	engine.SetDefaultCacher(caches.NewLRUCacher2(caches.NewMemoryStore(), expiry, rows))
	return &xormClient{engine}, nil
}

func (c *xormClient) Item(ctx context.Context, id int64) (Item, error) {
	var item xormItem
	found, err := c.engine.Context(ctx).ID(id).Get(&item)
	if err == nil && !found {
		err = sql.ErrNoRows
	}
	return Item(item), err
}

func (c *xormClient) SetStock(ctx context.Context, id, stock int64) error {
	_, err := c.engine.Context(ctx).ID(id).Cols("stock").Update(&xormItem{Stock: stock})
	return err
}

func (c *xormClient) Close() error { return c.engine.Close() }

// redisCacheClient keeps rows in Redis and, with a local cache, in the process.
type redisCacheClient struct {
	sqlClient
	redis  *goredis.Client
	cache  *rediscache.Cache
	prefix string
}

func openRedisCache(e Env) (Client, error) {
	return openRedisCacheWith(e, rediscache.NewTinyLFU(rows, expiry))
}

// openRedisCacheFar keeps nothing in the process.
func openRedisCacheFar(e Env) (Client, error) { return openRedisCacheWith(e, nil) }

func openRedisCacheWith(e Env, local rediscache.LocalCache) (Client, error) {
	db, err := openDB("pgx", e.DSN)
	if err != nil {
		return nil, err
	}
	options, err := goredis.ParseURL(e.Redis)
	if err != nil {
		return nil, err
	}
	client := goredis.NewClient(options)
	c := rediscache.New(&rediscache.Options{Redis: client, LocalCache: local})
	return onlyClient{&redisCacheClient{sqlClient{db}, client, c, e.Name + ":r:"}}, nil
}

func (c *redisCacheClient) Item(ctx context.Context, id int64) (item Item, err error) {
	err = c.cache.Once(&rediscache.Item{
		Ctx:   ctx,
		Key:   c.prefix + strconv.FormatInt(id, 10),
		Value: &item,
		TTL:   expiry,
		Do:    func(*rediscache.Item) (any, error) { return c.sqlClient.Item(ctx, id) },
	})
	return item, err
}

func (c *redisCacheClient) SetStock(ctx context.Context, id, stock int64) error {
	if err := c.sqlClient.SetStock(ctx, id, stock); err != nil {
		return err
	}
	return c.cache.Delete(ctx, c.prefix+strconv.FormatInt(id, 10))
}

func (c *redisCacheClient) Close() error {
	c.redis.Close()
	return c.sqlClient.Close()
}

// zeroClient is the model that go-zero's generator writes: rows in Redis.
type zeroClient struct {
	db     *sql.DB
	conn   sqlc.CachedConn
	prefix string
}

func openZero(e Env) (Client, error) {
	logx.Disable()
	db, err := openDB("pgx", e.DSN)
	if err != nil {
		return nil, err
	}
	options, err := goredis.ParseURL(e.Redis)
	if err != nil {
		return nil, err
	}
	redis, err := zeroredis.NewRedis(zeroredis.RedisConf{Host: options.Addr, Type: zeroredis.NodeType, Pass: options.Password})
	if err != nil {
		return nil, err
	}
	conn := sqlc.NewNodeConn(sqlx.NewSqlConnFromDB(db), redis, cache.WithExpiry(expiry))
	return &zeroClient{db, conn, e.Name + ":z:"}, nil
}

func (c *zeroClient) Item(ctx context.Context, id int64) (item Item, err error) {
	err = c.conn.QueryRowCtx(ctx, &item, c.prefix+strconv.FormatInt(id, 10),
		func(ctx context.Context, conn sqlx.SqlConn, v any) error {
			return conn.QueryRowCtx(ctx, v, selectItem, id)
		})
	return item, err
}

func (c *zeroClient) SetStock(ctx context.Context, id, stock int64) error {
	_, err := c.conn.ExecCtx(ctx, func(ctx context.Context, conn sqlx.SqlConn) (sql.Result, error) {
		return conn.ExecCtx(ctx, updateStock, id, stock)
	}, c.prefix+strconv.FormatInt(id, 10))
	return err
}

func (c *zeroClient) Close() error { return c.db.Close() }

// onlyClient hides the querier's methods that a client inherits from sqlClient:
// they would go past its cache.
type onlyClient struct{ Client }
