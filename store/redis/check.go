package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	goredis "github.com/redis/go-redis/v9"
)

// Check implements store.Shared. It asks every server, whatever the breaker
// says, and its error holds addresses but no user, password or URL.
func (s *Store) Check(ctx context.Context) error {
	if s.closed.Load() {
		return s.outcome(errReplaced)
	}
	var err error
	for range 2 {
		var in *incarnation
		if in, err = s.connect(ctx, true); err == nil {
			err = each(in.partitions, func(p *partition) error { return p.check(ctx) })
		}
		if faultOf(err) != replaced {
			break
		}
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	return s.outcome(explain(s.target, err))
}

func (p *partition) check(ctx context.Context) error {
	name := p.prefix + "c"
	if _, err := p.run(ctx, checkScript, []string{name, name + "h"}); err != nil {
		return err
	}
	if err := p.pipe.do(ctx, goredis.NewSliceCmd(ctx, "MGET", name)); err != nil {
		return err
	}
	err := p.pipe.do(ctx, goredis.NewStatusCmd(ctx, "SET", name, "", "PX", 1))
	if goredis.HasErrorPrefix(err, "OOM") {
		return nil // full is not wrong: it drops fills until something has expired
	}
	return err
}

// explain says what is wrong, in the words of somebody who can mend it.
func explain(t *Target, err error) error {
	if u := (*unfit)(nil); errors.As(err, &u) {
		return fmt.Errorf("%w (%v)", err, t)
	}
	return fmt.Errorf("cachedpg: cache_store: %v: %s%w", t, hint(t, err), err)
}

func hint(t *Target, err error) string {
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	text := err.Error()
	switch {
	case errors.As(err, &record):
		return "TLS: the server does not seem to speak it: "
	case errors.As(err, &certificate), strings.Contains(text, "tls: "):
		return "TLS: "
	case hasPrefix(err, []string{"NOAUTH", "WRONGPASS", "ERR AUTH", "ERR invalid password"}):
		return "user or password: "
	case hasPrefix(err, []string{"NOPERM"}), strings.Contains(text, "ACL failure"), strings.Contains(text, "has no permissions"),
		strings.Contains(text, "user executing the script can't"):
		return "permissions of the user: "
	case isTimeout(err) && t.tls(): // a server without TLS waits for the rest of what it takes for a command
		return "no answer in time; does the server speak TLS? "
	case isTimeout(err):
		return "no answer in time: "
	case !t.tls() && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return "the server hangs up; does it want TLS? "
	}
	return ""
}

func (t *Target) tls() bool {
	switch {
	case t.Options != nil:
		return t.Options.TLSConfig != nil
	case t.Failover != nil:
		return t.Failover.TLSConfig != nil
	}
	return t.ClusterOptions != nil && t.ClusterOptions.TLSConfig != nil
}
