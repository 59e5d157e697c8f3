package redis

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// parameter is what a URL's query may hold: what go-redis takes there. Some of it is
// the driver's to choose, because reads from replicas are stale, and retries and redirects run a
// script twice. That may be said as it is chosen, so that a URL of another program's
// can be used, and an error says why it cannot be had otherwise.
type parameter struct {
	where topology
	tls   bool // only with TLS
	check func(value string) (canonical string, err error)
	own   bool // read here, not by go-redis
}

var parameters = map[string]parameter{
	"client_name":              {where: anywhere, check: text},
	"dial_timeout":             {where: anywhere, check: timeout},
	"read_timeout":             {where: anywhere, check: timeout},
	"write_timeout":            {where: anywhere, check: timeout},
	"pool_timeout":             {where: anywhere, check: timeout},
	"pool_fifo":                {where: anywhere, check: boolean},
	"pool_size":                {where: anywhere, check: number(1)},
	"min_idle_conns":           {where: anywhere, check: number(0)},
	"max_idle_conns":           {where: anywhere, check: number(0)},
	"max_active_conns":         {where: anywhere, check: number(0)},
	"max_concurrent_dials":     {where: anywhere, check: number(1)},
	"conn_max_idle_time":       {where: anywhere, check: age},
	"conn_max_lifetime":        {where: anywhere, check: age},
	"conn_max_lifetime_jitter": {where: anywhere, check: age},
	"idle_timeout":             {where: single | socket, check: age}, // older names of the two
	"max_conn_age":             {where: single | socket, check: age},

	"protocol":                  fixed("the driver speaks RESP2, and needs nothing of 3", "2"),
	"unstable_resp3":            fixed("the driver speaks RESP2", "false"),
	"max_retries":               fixed("a script must not run twice by itself", "-1"),
	"min_retry_backoff":         fixed("nothing is retried", "-1"),
	"max_retry_backoff":         fixed("nothing is retried", "-1"),
	"max_redirects":             fixed("a script must not run twice by itself", "-1"),
	"dialer_retries":            fixed("a query does not wait for a second attempt", "1"),
	"read_only":                 fixed("what a replica says is old", "false"),
	"replica_only":              fixed("what a replica says is old", "false"),
	"use_disconnected_replicas": fixed("what a replica says is old", "false"),
	"route_by_latency":          fixed("what a replica says is old", "false"),
	"route_randomly":            fixed("what a replica says is old", "false"),
	"context_timeout_enabled":   fixed("a query's deadline counts", "true"),

	"db":                {where: single | socket | sentinel, check: number(0), own: true},
	"addr":              {where: sentinel | cluster, check: text, own: true},
	"master_name":       {where: sentinel, check: text, own: true},
	"sentinel_username": {where: sentinel, check: text, own: true},
	"sentinel_password": {where: sentinel, check: text, own: true},
	"tls_ca":            {where: anywhere, tls: true, check: text, own: true},
	"tls_cert":          {where: anywhere, tls: true, check: text, own: true},
	"tls_key":           {where: anywhere, tls: true, check: text, own: true},
	"tls_server_name":   {where: anywhere, tls: true, check: text, own: true},
	"skip_verify":       {where: anywhere, tls: true, check: boolean, own: true},
}

// fixed is what the driver has chosen.
func fixed(why, chosen string) parameter {
	return parameter{where: anywhere, own: true, check: func(value string) (string, error) {
		if b, err := strconv.ParseBool(value); err == nil && (chosen == "true" || chosen == "false") {
			value = strconv.FormatBool(b)
		}
		if value != chosen {
			return "", fmt.Errorf("is the driver's to choose, want %s or nothing: %s", chosen, why)
		}
		return value, nil
	}}
}

func text(value string) (string, error) {
	if value == "" {
		return "", errors.New("is empty")
	}
	return value, nil
}

func boolean(value string) (string, error) {
	b, err := strconv.ParseBool(value)
	if err != nil {
		return "", errors.New("want true or false")
	}
	return strconv.FormatBool(b), nil
}

func number(least int) func(string) (string, error) {
	return func(value string) (string, error) {
		n, err := strconv.Atoi(value)
		if err != nil || n < least || n > 65535 {
			return "", fmt.Errorf("want a number between %d and 65535", least)
		}
		return strconv.Itoa(n), nil
	}
}

// timeout cannot be switched off: a Redis that hangs must not hang a query.
func timeout(value string) (string, error) {
	d, err := duration(value)
	if err != nil || d <= 0 {
		return "", errors.New("want a positive duration such as 500ms")
	}
	return d.String(), nil
}

// age of zero or less is no limit, as go-redis has it.
func age(value string) (string, error) {
	d, err := duration(value)
	if err != nil {
		return "", errors.New("want a duration such as 10m")
	}
	if d <= 0 {
		return "-1", nil
	}
	return d.String(), nil
}

func duration(value string) (time.Duration, error) {
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second, nil
	}
	return time.ParseDuration(value)
}
