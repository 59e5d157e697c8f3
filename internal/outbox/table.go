package outbox

import (
	"encoding/hex"
	"fmt"

	"github.com/cachedpg/cachedpg/store"
)

// Table is the name of the table.
const Table = "cachedpg.outbox"

// TableSQL makes it.
const TableSQL = `CREATE TABLE IF NOT EXISTS cachedpg.outbox (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    tags    pg_catalog.bytea NOT NULL,      -- 17 bytes each
    local   boolean NOT NULL DEFAULT false, -- the writer's own store may not have been told
    alone   boolean NOT NULL DEFAULT false, -- of a statement that runs outside of transactions
    xid     pg_catalog.xid8,                -- of what stands outside of it: the writer's transaction
    writer  pg_catalog.bytea,               -- of a request: the id to mark with
    catalog bigint,                         -- of a request: the stamp that the writer planned with
    marked  boolean,                        -- of a request: the answer
    problem pg_catalog.text                 -- why it was set aside
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX IF NOT EXISTS outbox_requests ON cachedpg.outbox (id) WHERE writer IS NOT NULL`

// Privileges are what the roles of writers and relays need on the table.
const Privileges = "SELECT, INSERT, UPDATE, DELETE"

// channel is where requests are announced.
const channel = "cachedpg_outbox"

// encodeTags is an SQL expression of type bytea.
func encodeTags(tags []store.Tag) string {
	b := make([]byte, 0, len(tags)*store.TagBytes)
	for _, t := range tags {
		b = store.AppendTag(b, t)
	}
	return "pg_catalog.decode('" + hex.EncodeToString(b) + "', 'hex')"
}

// parseTags reads what encodeTags has written. There are none if there is a problem.
func parseTags(b []byte) (tags []store.Tag, problem string) {
	for i := 0; i+store.TagBytes <= len(b); i += store.TagBytes {
		tag, _ := store.ParseTag(b[i : i+store.TagBytes])
		tags = append(tags, tag)
	}
	if len(tags) == 0 || len(b)%store.TagBytes != 0 {
		return nil, fmt.Sprintf("tags of %d bytes, which are none", len(b))
	}
	return tags, ""
}
