package main

import (
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"flag"
	"io"
	"os"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/contrib/kafka"
)

// options are what both commands are told.
type options struct {
	name     string // of the command
	from     string
	dsn      string
	kafka    kafka.Config
	batch    int
	interval time.Duration
}

// parse reads the flags of a command. The flag package's own listing would show
// defaults, and so the password of a DSN.
func parse(name string, args []string) (*options, error) {
	o := &options{name: name}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.dsn, "dsn", os.Getenv("CACHEDPG_DSN"), "")
	brokers := flags.String("brokers", os.Getenv("CACHEDPG_KAFKA_BROKERS"), "")
	flags.StringVar(&o.kafka.Topic, "topic", os.Getenv("CACHEDPG_KAFKA_TOPIC"), "")
	flags.StringVar(&o.kafka.User, "user", "", "")
	flags.StringVar(&o.kafka.Mechanism, "mechanism", "", "")
	flags.DurationVar(&o.kafka.Timeout, "timeout", 0, "")
	encrypted := flags.Bool("tls", false, "")
	ca, cert, key := flags.String("ca", "", ""), flags.String("cert", "", ""), flags.String("key", "", "")
	if name == "consume" {
		flags.StringVar(&o.kafka.Group, "group", "", "")
	} else {
		flags.StringVar(&o.from, "from", "", "")
		flags.IntVar(&o.batch, "batch", 0, "")
		flags.DurationVar(&o.interval, "interval", 0, "")
	}
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp:
		return nil, err
	case err != nil:
		return nil, misused("%s: %v", name, err)
	case flags.NArg() > 0:
		return nil, misused("%s: %d arguments too many", name, flags.NArg())
	case o.dsn == "":
		return nil, misused("%s: no --dsn", name)
	case *brokers == "":
		return nil, misused("%s: no --brokers", name)
	case o.kafka.Topic == "":
		return nil, misused("%s: no --topic", name)
	case name == "consume" && o.kafka.Group == "":
		return nil, misused("consume: no --group: name the region; no two stores may have one name")
	case name == "produce" && o.from != "outbox" && o.from != "wal":
		return nil, misused("produce: --from=%q: want outbox or wal", o.from)
	case o.from == "wal" && (o.batch != 0 || o.interval != 0):
		return nil, misused("produce: --batch and --interval are for --from=outbox")
	case !*encrypted && (*ca != "" || *cert != "" || *key != ""):
		return nil, misused("%s: --ca, --cert and --key are for --tls", name)
	}
	o.kafka.Brokers = strings.Split(*brokers, ",")
	if o.kafka.User != "" {
		o.kafka.Password = os.Getenv("CACHEDPG_KAFKA_PASSWORD")
	}
	if *encrypted {
		var err error
		if o.kafka.TLS, err = tlsConfig(*ca, *cert, *key); err != nil {
			return nil, misused("%s: %v", name, err)
		}
	}
	return o, nil
}

func tlsConfig(ca, cert, key string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, misused("--ca %s: no certificate in it", ca)
		}
	}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// open opens the region's database. What it says of a wrong DSN is
// redacted.
func (o *options) open() (*sql.DB, error) {
	_, config, err := cachedpg.ParseConfig(o.dsn)
	if err != nil {
		return nil, misused("%s: --dsn: %s", o.name, strings.TrimPrefix(err.Error(), "cachedpg: "))
	}
	// What these apply, or mark, is for others, who cannot see this process's memory.
	if o.from != "wal" && !strings.Contains(config.Store, "://") {
		return nil, misused("%s: --dsn: cache_store is not shared: name the region's Redis", o.name)
	}
	db, err := sql.Open("cachedpg", o.dsn)
	if err != nil {
		return nil, misused("%s: --dsn: %s", o.name, strings.TrimPrefix(err.Error(), "cachedpg: "))
	}
	return db, nil
}
