package core

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/clock"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
)

// Open returns what the connections of an sql.DB share that dials with pgConfig, which must come from
// pgx.ParseConfig. It returns every problem of the configuration joined. It does not dial.
func Open(pgConfig pgx.ConnConfig, cfg config.Config) (*DB, error) {
	d, err := newDB(cfg)
	if err != nil {
		return nil, err
	}
	d.traced, d.Watches = true, true
	d.base = &pgConfig
	d.mode = pgConfig.DefaultQueryExecMode
	d.connect = func(ctx context.Context, b *link) (backend.Conn, error) {
		dialled := pgConfig // a shallow copy, so that Tracer is this connection's own
		backend.AsPrimary(ctx, &dialled)
		dialled.Tracer = tracer{b}
		if pgConfig.Tracer != nil {
			dialled.Tracer = multitracer.New(tracer{b}, pgConfig.Tracer)
		}
		seat := backend.WithRider(&dialled)
		in, err := dialPgx(ctx, stdlib.GetConnector(dialled))
		if err == nil {
			seat(in.(*backend.Pgx))
		}
		return in, err
	}
	// A hook of the caller may make sessions differ; then the state of a
	// connection is not known before it is dialled.
	d.eager = pgConfig.AfterConnect != nil ||
		pgConfig.ValidateConnect != nil && !backend.DefinedIn(reflect.ValueOf(pgConfig.ValidateConnect), reflect.TypeFor[pgconn.Config]().PkgPath())
	return d, nil
}

// Wrap returns what the connections of an sql.DB share that come from c, a connector of pgx's stdlib package.
// See cachedpg.WrapConnector.
func Wrap(c backend.Connector, cfg config.Config, tracers ...*Tracer) (*DB, error) {
	if cfg.MaxConns != 0 {
		return nil, errWrappedPlaces
	}
	d, err := newDB(cfg)
	if err != nil {
		return nil, err
	}
	d.eager, d.Watches = true, true
	d.wrapped = c
	d.left, d.customKey = make(map[*backend.Tap]*link), fmt.Sprintf("cachedpg.left %p", d)
	d.connect = func(ctx context.Context, b *link) (backend.Conn, error) {
		in, err := dialPgx(ctx, c)
		if err != nil {
			return nil, err
		}
		ours := in.(*backend.Pgx)
		d.own.Store(ownConfig(ours.PgxConn()))
		for _, t := range tracers {
			ours.Lend(t.lend(ours.PgxConn(), b))
		}
		return in, nil
	}
	for _, t := range tracers {
		t.add(d)
		d.closers = append(d.closers, func() { t.remove(d) })
	}
	return d, nil
}

func newDB(cfg config.Config) (*DB, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return nil, err
	}
	target, err := cfg.Target()
	if err != nil {
		return nil, err
	}
	d := &DB{Member: space.Member{Config: cfg, Target: target}, closing: func() bool { return false }, readPatience: patience.Read,
		idlers: idlers{retake: space.Backoff{Min: time.Second, Max: time.Minute}}, sessions: make(map[[32]byte]*planning.Session), spaces: make(map[backend.Identity]*space.Space), together: make(map[space.Pair]bool),
		through: cfg.WritesThrough(),
		given:   clock.New[givenKey, string](maxGiven), paths: clock.New[pathKey, []string](maxGiven), derived: clock.New[derivation, *planning.Session](maxDerived)}
	d.Dialler, d.queueConn = d, d.newApplier
	d.Texts.Init(&d.Config)
	if d.StoreName = cfg.Store; target != nil {
		d.StoreName = target.Server()
	}
	if cfg.MaxConns > 0 {
		d.places = &places{d: d, max: cfg.MaxConns}
	}
	return d, nil
}
