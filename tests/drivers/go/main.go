// Tests emit() through pgx, in each of its query modes, and through database/sql.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"reflect"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	_ "github.com/jackc/pgx/v5/stdlib"
)

const text = `{"b": 1.5, "a": [1, 2], "text": "größe"}`
const id = "0d9c5f3c-6f0e-4f0a-9a0e-0d7c4ef4b3a1"

type row struct{ key, headers string }

type call struct {
	sql    string
	values []any
	row    row
}

func calls() []call {
	var document map[string]any
	check(json.Unmarshal([]byte(text), &document))
	var uuid pgtype.UUID
	check(uuid.Scan(id))
	headers := `{"tenant": "acme"}`
	var all []call
	for _, cast := range []string{"", "::text", "::json", "::jsonb"} {
		payloads := []any{text}
		if cast == "::json" || cast == "::jsonb" {
			payloads = append(payloads, document)
		}
		for _, payload := range payloads {
			add := func(sql string, row row, values ...any) {
				all = append(all, call{sql, append([]any{"a", payload}, values...), row})
			}
			emit := "SELECT postrider.emit($1, $2" + cast
			add(emit+")", row{"", "{}"})
			add(emit+", $3, $4)", row{"o-1", "{}"}, "order", "o-1")
			add(emit+", $3, $4)", row{id, "{}"}, "order", id)
			add(emit+", $3, $4::bigint)", row{"42", "{}"}, "order", int64(42))
			add(emit+", $3, $4::int)", row{"42", "{}"}, "order", int32(42))
			add(emit+", $3, $4::uuid)", row{id, "{}"}, "order", uuid)
			for _, to := range []string{"", "::json", "::jsonb"} {
				add(emit+", $3, $4, headers => $5"+to+")", row{"o-1", headers}, "order", "o-1", headers)
			}
		}
		many := fmt.Sprintf(`[{"event_type": "a", "payload": %s}]`, text)
		all = append(all, call{"SELECT postrider.emit_many($1" + cast + ")", []any{many}, row{"", "{}"}})
	}
	return all
}

func main() {
	ctx := context.Background()
	url := os.Getenv("DATABASE_URL")
	reader, err := pgx.Connect(ctx, url)
	check(err)
	var last int64
	check(reader.QueryRow(ctx, "SELECT coalesce(max(seq), 0) FROM postrider.outbox").Scan(&last))

	var expected []row
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe,
		pgx.QueryExecModeDescribeExec,
	} {
		config, err := pgx.ParseConfig(url)
		check(err)
		config.DefaultQueryExecMode = mode
		client, err := pgx.ConnectConfig(ctx, config)
		check(err)
		for _, call := range calls() {
			if _, err := client.Exec(ctx, call.sql, call.values...); err != nil {
				log.Fatalf("%v: %s: %v", mode, call.sql, err)
			}
			expected = append(expected, call.row)
		}
		check(client.Close(ctx))
	}

	database, err := sql.Open("pgx", url)
	check(err)
	for _, call := range calls() {
		if _, err := database.Exec(call.sql, call.values...); err != nil {
			log.Fatalf("database/sql: %s: %v", call.sql, err)
		}
		expected = append(expected, call.row)
	}
	compare(ctx, reader, last, expected)
}

func compare(ctx context.Context, reader *pgx.Conn, last int64, expected []row) {
	rows, err := reader.Query(ctx, `SELECT payload::text, coalesce(aggregate_id, ''), headers::text
		FROM postrider.outbox WHERE seq > $1 ORDER BY seq`, last)
	check(err)
	index := 0
	for ; rows.Next(); index++ {
		var payload string
		var found row
		check(rows.Scan(&payload, &found.key, &found.headers))
		var stored, sent any
		check(json.Unmarshal([]byte(payload), &stored))
		check(json.Unmarshal([]byte(text), &sent))
		if !reflect.DeepEqual(stored, sent) || index >= len(expected) || found != expected[index] {
			log.Fatalf("row %d: %s %v", index, payload, found)
		}
	}
	check(rows.Err())
	if index != len(expected) {
		log.Fatalf("%d rows of %d", index, len(expected))
	}
	fmt.Printf("%d calls, every row as sent\n", index)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
