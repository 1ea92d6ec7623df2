// Tests emit() through node-postgres: with objects, strings, numbers and bigints, by an unnamed and
// by a prepared statement.
'use strict'

const assert = require('node:assert')
const { createHash } = require('node:crypto')
const { Client } = require('pg')

const DOCUMENT = { b: 1.5, a: [1, 2], text: 'größe' }
const HEADERS = { tenant: 'acme' }
const ID = '0d9c5f3c-6f0e-4f0a-9a0e-0d7c4ef4b3a1'

async function main() {
  const client = new Client({ connectionString: process.env.DATABASE_URL })
  await client.connect()
  const { rows: [{ last }] } = await client.query(
    'SELECT coalesce(max(seq), 0) AS last FROM postrider.outbox')
  const expected = []
  const emit = async (sql, values, key, headers) => {
    await client.query(sql, values)
    // The call is repeated as a prepared statement, which has a name.
    await client.query({ name: createHash('sha1').update(sql).digest('hex'), text: sql, values })
    expected.push([key, headers], [key, headers])
  }
  for (const cast of ['', '::text', '::json', '::jsonb']) {
    for (const payload of [DOCUMENT, JSON.stringify(DOCUMENT)]) {
      await emit(`SELECT postrider.emit('a', $1${cast})`, [payload], null, {})
      for (const [keyCast, key] of [['', 'o-1'], ['', 42], ['::bigint', 42], ['::int', 42],
        ['', 2n ** 40n], ['::uuid', ID]]) {
        await emit(`SELECT postrider.emit($1, $2${cast}, $3, $4${keyCast})`,
          ['a', payload, 'order', key], String(key), {})
        for (const headersCast of ['', '::json', '::jsonb']) {
          await emit(
            `SELECT postrider.emit($1, $2${cast}, $3, $4${keyCast}, headers => $5${headersCast})`,
            ['a', payload, 'order', key, HEADERS], String(key), HEADERS)
        }
      }
    }
    const events = JSON.stringify([{ event_type: 'a', payload: DOCUMENT }])
    await emit(`SELECT postrider.emit_many($1${cast})`, [events], null, {})
  }
  const { rows } = await client.query(
    'SELECT payload, aggregate_id, headers FROM postrider.outbox WHERE seq > $1 ORDER BY seq', [last])
  assert.equal(rows.length, expected.length)
  rows.forEach((row, index) => {
    assert.deepEqual(row.payload, DOCUMENT)
    assert.deepEqual([row.aggregate_id, row.headers], expected[index])
  })
  await client.end()
  console.log(`${expected.length} calls, every row as sent`)
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
