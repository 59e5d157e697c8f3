package redis

import (
	"context"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// QueueRisk says in words how the server may lose what the queue has
// acknowledged; "" when it writes all of it to disk first.
func (s *Store) QueueRisk(ctx context.Context) (risk string, err error) {
	err = s.queue(ctx, func(p *partition) error {
		cmd := goredis.NewMapStringStringCmd(ctx, "CONFIG", "GET", "*")
		if err := p.pipe.do(ctx, cmd); err != nil {
			if faultOf(err) == refused {
				risk = "the settings of Redis cannot be read; it should have appendonly yes, appendfsync always and maxmemory-policy noeviction"
				return nil
			}
			return err
		}
		replication := goredis.NewStringCmd(ctx, "INFO", "replication")
		if err := p.pipe.do(ctx, replication); err != nil && faultOf(err) != refused {
			return err
		}
		replicas := parseInfo(replication.Val())["connected_slaves"]
		risk = riskOf(cmd.Val(), replicas != "" && replicas != "0")
		return nil
	})
	return risk, err
}

func riskOf(settings map[string]string, replicas bool) string {
	var risks []string
	switch {
	case settings["appendonly"] != "yes":
		risks = append(risks, "appendonly is off: a Redis that stops loses the queue; CONFIG SET appendonly yes")
	case settings["appendfsync"] != "always":
		risks = append(risks, "appendfsync is "+settings["appendfsync"]+": a machine that stops loses the last second or more; CONFIG SET appendfsync always")
	}
	if settings["maxmemory"] != "0" && strings.HasPrefix(settings["maxmemory-policy"], "allkeys") {
		risks = append(risks, "maxmemory-policy is "+settings["maxmemory-policy"]+": a full Redis evicts the queue; use a volatile policy or noeviction")
	}
	if replicas {
		text := "it has replicas, which get writes after they are acknowledged: one that is promoted may lack the last of them"
		if settings["min-replicas-to-write"] == "0" {
			text += "; CONFIG SET min-replicas-to-write 1, so that it is no more than min-replicas-max-lag"
		}
		risks = append(risks, text)
	}
	return strings.Join(risks, "; ")
}
