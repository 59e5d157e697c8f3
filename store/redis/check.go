package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"

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
		if in, err = s.connect(ctx); err == nil {
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
	return fmt.Errorf("cachedpg: cache_store: %v: %s%w", t, hint(err), err)
}

func hint(err error) string {
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &record), strings.Contains(err.Error(), "tls: "):
		return "TLS: does the server speak it? "
	case errors.As(err, &certificate):
		return "TLS: "
	case hasPrefix(err, []string{"NOAUTH", "WRONGPASS", "ERR AUTH", "ERR invalid password"}):
		return "user or password: "
	case hasPrefix(err, []string{"NOPERM"}), strings.Contains(err.Error(), "ACL failure"), strings.Contains(err.Error(), "has no permissions"):
		return "permissions of the user: "
	case errors.Is(err, io.EOF):
		return "the server hangs up; does it want TLS? "
	case isTimeout(err):
		return "no answer in time: "
	}
	return ""
}
