package redis

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// Check names what is wrong and shows no secret; whatever it is, no lookup is a
// hit and none waits twice.
func TestCheck(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t)
	secret := redistest.Start(t, "--requirepass", "hunter2")
	tls := redistest.TLS(t)
	replica := redistest.Replica(t, plain)
	if err := secret.Client().Do(background, "ACL", "SETUSER", "mute", "on", ">hunter3", "~cachedpg:*", "+@all", "-hset").Err(); err != nil {
		t.Fatal(err)
	}
	if err := secret.Client().Do(background, "ACL", "SETUSER", "other", "on", ">hunter3", "~elsewhere:*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	if err := secret.Client().Do(background, "ACL", "SETUSER", "app", "on", ">hunter3", "~cachedpg:*", "-@all",
		"+eval", "+evalsha", "+info", "+ping", "+hello", "+time", "+get", "+getrange", "+set", "+del", "+mget", "+pttl", "+pexpire", "+pexpireat",
		"+hset", "+hget", "+hmget", "+hgetall", "+hexists", "+hdel", "+hincrby").Err(); err != nil {
		t.Fatal(err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, tc := range []struct{ name, url, want string }{
		{"as it should be", plain.URL(), ""},
		{"with a password", secret.URL(), ""},
		{"with TLS", tls.URL(), ""},
		{"a user with what is needed", "redis://app:hunter3@" + secret.Addr(), ""},
		{"a user without a command", "redis://mute:hunter3@" + secret.Addr(), "permissions"},
		{"a user without the keys", "redis://other:hunter3@" + secret.Addr(), "permissions"},
		{"no password", "redis://" + secret.Addr(), "password"},
		{"wrong password", "redis://:hunter4@" + secret.Addr(), "password"},
		{"a replica", replica.URL(), "role"},
		{"TLS to a server without", "rediss://" + plain.Addr(), "TLS"},
		{"no TLS to a server with it", "redis://" + tls.Addr(), "TLS"},
		{"an unknown authority", "rediss://" + tls.Addr(), "certificate"},
		{"nobody", "redis://" + closed.Addr().String(), "refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := Options{}
			if tc.name == "TLS to a server without" {
				o.Timeout = 200 * time.Millisecond // such a server just says nothing
			}
			u := openURL(t, tc.url, o)
			for range 2 {
				err := u.Check(background)
				if tc.want == "" {
					if err != nil {
						t.Errorf("got %v", err)
					}
					continue
				}
				if err == nil || !strings.HasPrefix(err.Error(), "cachedpg: cache_store: ") || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want it to name %q", err, tc.want)
				}
				if err != nil && strings.Contains(err.Error(), "hunter") {
					t.Errorf("%v shows a password", err)
				}
			}
			if tc.want == "" {
				u.renew()
				key, _, row := fresh()
				u.cache(key, "v", schema, row)
				w := store.NewWriter()
				u.mark(w, row)
				u.release(w, row)
				return
			}
			key, _, row := fresh()
			u.never(key, schema, row)
			if live, err := u.Renew(background, yes); live || err == nil {
				t.Errorf("Renew: %v, %v", live, err)
			}
		})
	}
}

// A server without INFO's answers that tell its lives apart, too old, or no
// server at all.
func TestUnfitServers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ info, want string }{
		"too old":      {"redis_version:6.0.16\r\nrun_id:a\r\nrole:master\r\nmaster_replid:b\r\n", "6.0.16"},
		"no version":   {"run_id:a\r\nrole:master\r\nmaster_replid:b\r\n", "too old"},
		"no run_id":    {"redis_version:7.0.0\r\nrole:master\r\nmaster_replid:b\r\n", "run_id"},
		"no replid":    {"redis_version:7.0.0\r\nrole:master\r\nrun_id:b\r\n", "master_replid"},
		"no Redis":     {"", "run_id"},
		"no role":      {"redis_version:7.0.0\r\nrun_id:a\r\nmaster_replid:b\r\n", "role"},
		"six and two":  {"redis_version:6.2.0\r\nrun_id:a\r\nrole:master\r\nmaster_replid:b\r\n", ""},
		"a later fork": {"redis_version:10.0.1\r\nrun_id:a\r\nrole:master\r\nmaster_replid:b\r\n", ""},
	} {
		n := &node{}
		err := n.meet(parseInfo(tc.info))
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want it to name %q", name, err, tc.want)
		}
	}
}

// What answers is no Redis.
func TestNoRedis(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			c.Close()
		}
	}()
	defer func() { l.Close(); <-done }()
	u := openURL(t, "redis://"+l.Addr().String(), Options{})
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	if err := u.Check(ctx); err == nil || !strings.HasPrefix(err.Error(), "cachedpg: cache_store: ") {
		t.Errorf("got %v", err)
	}
	key, _, row := fresh()
	u.never(key, row)
}
