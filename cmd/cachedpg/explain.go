package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/redact"
)

const explainText = `Usage: cachedpg explain [--dsn DSN] [--json] 'SQL' [argument…]

Says what the driver does with a statement, without running it: whether its
result is cached and as what, why not and what helps, what it depends on, and
what running it invalidates.

The DSN is that of the application, cache_* keys included. The schema is read
from PostgreSQL; nothing is asked of a Redis that the DSN names. Arguments stand
for $1, $2, … and are taken as texts; without them rows are named by parameter.

  --dsn DSN   as for sql.Open; $CACHEDPG_DSN if not given
  --json      print one JSON object
`

// explainTimeout bounds connecting and reading the schema.
const explainTimeout = time.Minute

func explain(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := flag.NewFlagSet("explain", flag.ContinueOnError)
	dsn := flags.String("dsn", os.Getenv("CACHEDPG_DSN"), "")
	asJSON := flags.Bool("json", false, "")
	if err := parse(flags, args, explainText, stdout); err != nil {
		return err
	}
	switch {
	case *dsn == "":
		return misused("explain: no --dsn")
	case flags.NArg() == 0:
		return misused("explain: no statement")
	}
	config, pgConfig, err := readDSN("explain", *dsn)
	if err != nil {
		return err
	}
	var queued []cachedpg.Policy
	for i, p := range config.Policies {
		if p.Strategy == "write-behind" {
			queued = append(queued, p)
			config.Policies[i].Strategy = "cache-aside"
		}
	}
	db, err := cachedpg.OpenDB(*pgConfig, config)
	if err != nil {
		return misused("%s", trim(err))
	}
	defer db.Close()

	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	var values []any
	for _, arg := range flags.Args()[1:] {
		values = append(values, arg)
	}
	x, err := cachedpg.Explain(ctx, db, flags.Arg(0), values...)
	if err != nil {
		return fmt.Errorf("cachedpg: explain: %s", trim(err))
	}
	if len(values) > 0 { // an application's are no texts, which a shell's all are
		x.Key.Digest = ""
		x.Notes = append(x.Notes, "The key's digest is left out: it depends on the Go types of the application's arguments.")
	}
	for _, p := range queued {
		if concerns(x, p.Relation) {
			x.Notes = append(x.Notes, "Its writes by key are queued: "+p.Relation+" has strategy write-behind, which is left out here because it needs the Redis.")
		}
	}
	if !*asJSON {
		_, err = io.WriteString(stdout, x.String())
		return err
	}
	encoder := json.NewEncoder(stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(x)
}

// concerns reports that what the statement reads or invalidates is of a relation.
func concerns(x *cachedpg.Explanation, relation string) bool {
	return slices.ContainsFunc(slices.Concat(x.Reads, x.Invalidates), func(tag string) bool {
		_, name, _ := strings.Cut(tag, " ")
		name, _, _ = strings.Cut(name, "(")
		name, _, _ = strings.Cut(name, ",")
		relation = strings.ReplaceAll(relation, `"`, "")
		return name == relation || strings.HasSuffix(name, "."+relation)
	})
}

// readDSN parses the DSN of an application. Its shared store is left alone: a
// program that comes to look must not take part in keeping a cache.
func readDSN(command, dsn string) (cachedpg.Config, *pgx.ConnConfig, error) {
	config, pgConfig, err := parseDSN(command, dsn)
	if config.Mode != "read-write" && config.Mode != "" {
		config.Store, config.Mode, config.Encryption = "off", "", ""
	}
	if config.Store != "off" {
		config.Store, config.Encryption = "memory", ""
	}
	config.Outbox = ""
	return config, pgConfig, err
}

// parseDSN parses the DSN of an application.
func parseDSN(command, dsn string) (cachedpg.Config, *pgx.ConnConfig, error) {
	pgDSN, config, err := cachedpg.ParseConfig(dsn)
	if err != nil {
		return config, nil, misused("%s: --dsn: %s", command, trim(err))
	}
	pgConfig, err := pgx.ParseConfig(pgDSN)
	if err != nil {
		return config, nil, misused("%s: --dsn: %s", command, redact.DSN(err))
	}
	return config, pgConfig, nil
}

// trim takes the project's name off an error that is printed behind it.
func trim(err error) string {
	return strings.TrimPrefix(err.Error(), "cachedpg: ")
}
