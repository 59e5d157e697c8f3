package redis

import (
	"context"
	"fmt"
	"net"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// quiet dials as go-redis would for o, but has the connection tell why there is none.
// What a dialer returns as an error go-redis (9.21) prints on stderr, each time that it
// tries; the store keeps the error and tells it where it is asked, see breaker.
func quiet(o *goredis.Options) dialer {
	dial := o.Dialer
	if dial == nil {
		dial = goredis.NewDialer(o)
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return &failedConn{fmt.Errorf("%w", err)}, nil
		}
		return conn, nil
	}
}

// failedConn is a connection that could not be made.
type failedConn struct{ err error }

func (c *failedConn) Read([]byte) (int, error)         { return 0, c.err }
func (c *failedConn) Write([]byte) (int, error)        { return 0, c.err }
func (c *failedConn) Close() error                     { return nil }
func (c *failedConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *failedConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *failedConn) SetDeadline(time.Time) error      { return nil }
func (c *failedConn) SetReadDeadline(time.Time) error  { return nil }
func (c *failedConn) SetWriteDeadline(time.Time) error { return nil }
