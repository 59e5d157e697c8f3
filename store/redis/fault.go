package redis

import (
	"context"
	"errors"
	"net"

	goredis "github.com/redis/go-redis/v9"
)

// fault says what an error means for what comes after it.
type fault uint8

const (
	none        fault = iota
	refused           // the server says no to this command; the next may well succeed
	replaced          // it is not the server, or not in the role, that the client was made for
	unreachable       // nobody answers, or nobody who can
)

// errReplaced is why a connection is not taken into use.
var errReplaced = errors.New("cachedpg: the Redis server is not the one that it was")

// away are answers of a server that cannot serve now, or not us: to ask again
// at once is of no use.
var away = []string{"LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY ", "max number of clients", "ERR max number of clients",
	"NOAUTH", "WRONGPASS", "ERR AUTH", "ERR invalid password"}

var moved = []string{"READONLY", "MOVED", "ASK "}

func faultOf(err error) fault {
	if err == nil {
		return none
	}
	var answer goredis.Error
	switch {
	case errors.Is(err, errReplaced), errors.Is(err, goredis.ErrClosed), hasPrefix(err, moved):
		return replaced
	case hasPrefix(err, away), errors.As(err, new(*unfit)):
		return unreachable
	case errors.As(err, &answer):
		return refused
	}
	return unreachable
}

func hasPrefix(err error, prefixes []string) bool {
	for _, p := range prefixes {
		if goredis.HasErrorPrefix(err, p) {
			return true
		}
	}
	return false
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, goredis.ErrPoolTimeout) || errors.As(err, &t) && t.Timeout()
}
