/** Values as people read them. */

import type { Bucket, Cell, Groups, NodeLoss, Range, Row, Served, Table } from './api'
import { instant, nanos } from './time'

/** What a node lost, in words; empty if nothing. */
export function losses(node: NodeLoss): string[] {
  const parts: [number, string][] = [
    [node.kernel_drops, 'packets dropped by the kernel'],
    [node.queue_drops + node.unwritten, 'packets not kept'],
    [node.flow_rows_lost, 'flow rows lost'],
    [node.transactions_lost, 'transactions lost'],
    [node.interruptions, 'times killed or unable to capture (the seconds around are missing)'],
    [node.not_captured_seconds, 's in which nothing was captured'],
  ]
  return parts.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`)
}

/** What share of the ends of rows has no name, in words, and the query that finds them; empty without rows. */
export function unnamed(buckets: Bucket[]): { text: string; query: string }[] {
  const sum = (value: (bucket: Bucket) => number) => buckets.reduce((total, bucket) => total + value(bucket), 0)
  const ends = 2 * sum((bucket) => bucket.rows)
  if (ends === 0) return []
  const part = (count: number, what: string, word: string) => ({
    text: `${percent(count / ends)} ${what}`,
    query: `tagged_by == ${word}`,
  })
  return [
    part(sum((bucket) => bucket.ambiguous_ends), 'ambiguous', 'ambiguous'),
    part(sum((bucket) => bucket.unnamed_ends), 'unattributed', 'none'),
  ]
}

/** A number of rows, and their bytes. */
export type Amount = { rows: number; bytes: number }

/** All rows that began in the time of the bars. */
export function total(buckets: Bucket[]): Amount {
  return buckets.reduce((sum, { rows, bytes }) => ({ rows: sum.rows + rows, bytes: sum.bytes + bytes }), { rows: 0, bytes: 0 })
}

/** How many of all rows are shown. Lists take rows that began before, too: there may be fewer in all than are shown. */
export function loaded(table: Table, shown: Amount, all: Amount, more: boolean): string {
  const part = all.rows > shown.rows
  const [rows, size] = part ? [`The newest ${shown.rows} of ${all.rows}`, ` of ${bytes(all.bytes)}`] : [`${shown.rows}${more ? '+' : ''}`, '']
  const what = shown.rows === 1 && !part && !more ? table.slice(0, -1) : table
  return `${rows} ${what}${table === 'flows' ? `, ${bytes(shown.bytes)}${size}` : ''}`
}

/** Never `0 %` of something, never `100 %` with an exception. */
export function percent(share: number): string {
  if (share === 0 || share === 1) return `${share * 100} %`
  const text = (share * 100).toFixed(share < 0.1 || share > 0.99 ? 1 : 0)
  if (Number(text) === 0) return '<0.1 %'
  return Number(text) === 100 ? '>99.9 %' : `${text} %`
}

export function micros(us: number): string {
  if (us < 1000) return `${us} µs`
  if (us < 999_950) return `${(us / 1000).toFixed(us < 10_000 ? 2 : 1)} ms`
  const seconds = Math.round(us / 1_000_000)
  if (seconds < 600) return `${(us / 1_000_000).toFixed(2)} s`
  const [days, hours, minutes] = [Math.floor(seconds / 86_400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60]
  if (days > 0) return `${days} d ${hours} h`
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min ${seconds % 60} s`
}

export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  let unit = 0
  // What rounds to 1000 is one of the next unit.
  while (count >= 999.5 && unit < units.length - 1) {
    count /= 1000
    unit += 1
  }
  return unit === 0 ? `${Math.round(count)} B` : `${count.toFixed(count < 10 ? 1 : 0)} ${units[unit]}`
}

/** `14:05:12.345` of an RFC 3339 time, UTC. */
export const clock = (time: string): string => time.slice(11, 23)

/** The day and the time of it, `2026-01-31 14:05:12.345`, UTC. */
export const moment = (time: string): string => time.slice(0, 23).replace('T', ' ')

/** How the times of these rows are shown: with their day, unless all are of `now`'s. */
export function moments(rows: Row[], now: Date): (time: string) => string {
  const today = now.toISOString().slice(0, 10)
  return rows.every((row) => text(row.start).startsWith(today)) ? clock : moment
}

/** Text with what cannot be seen in it, or turns the direction of reading, as its number: nobody looks like somebody else. Emoji may be joined. */
export const visible = (text: string): string =>
  text.replaceAll(/(?![\ufe0f\u200d])\p{Default_Ignorable_Code_Point}|\u200d(?!\p{Extended_Pictographic})/gu, (own) => `⟨${own.codePointAt(0)?.toString(16).toUpperCase()}⟩`)

/** Where a bucket ends, and the next begins. */
export function bucketEnd(buckets: Bucket[], at: number): string {
  const next = buckets[at + 1]?.start
  if (next !== undefined) return next
  const [last, before] = [buckets[at]?.start ?? '', buckets[at - 1]?.start ?? '']
  if (last === '' || before === '') return last
  return instant(2n * nanos(last) - nanos(before))
}

/** The time from one bar to another. Of a range with a begin and an end of its own the outer bars are as wide as the others, and count only what is in it. */
export function barRange(buckets: Bucket[], first: number, last: number, range: Range | null): Range {
  const from = first === 0 ? range?.from : undefined
  const to = last === buckets.length - 1 ? range?.to : undefined
  return { from: from ?? buckets[first]?.start ?? '', to: to ?? bucketEnd(buckets, last) }
}

export function durationMicros(start: string, end: string): number {
  return Number((nanos(end) - nanos(start)) / 1000n)
}

/** Pod or container, else the machine, else the address; the port after it; what is known besides. */
export function end(flow: Row, side: 'client' | 'server'): { name: string; port: string; named: boolean; title: string } {
  const name = flow[`${side}_pod`] ?? flow[`${side}_container`] ?? flow[`${side}_host`]
  const ip = String(flow[`${side}_ip`] ?? '?')
  const port = flow[`${side}_port`]
  const title = visible([name, ip, flow[`${side}_image`]].filter((part) => part != null).join(' '))
  return { name: visible(String(name ?? ip)), port: port === null || port === undefined ? '' : `:${port}`, named: name != null, title }
}

/** `web:40000 → db:5432`. */
export const ends = (row: Row): string => (['client', 'server'] as const).map((side) => end(row, side)).map(({ name, port }) => name + port).join(' → ')

/** `GET host/path`, or `A name`. */
export function request(row: Row): string {
  const path = text(row.http_path)
  // The target may be absolute already (RFC 9112, 3.2.2).
  const host = path === '' || path.startsWith('/') ? text(row.http_host) : ''
  const [verb, what] = row.dns_query != null ? [row.dns_type, row.dns_query] : [row.http_method, host + path]
  return visible(`${text(verb)} ${text(what)}`.trim())
}

/** What a flow was about: the name asked for, the first request and what came of it, the server's name. */
export function what(flow: Row): string {
  const asked = request(flow)
  if (flow.http_status != null) return `${asked} → ${text(flow.http_status)}`.trim()
  return asked === '' ? visible(text(flow.tls_sni)) : asked
}

/** Whether a code of DNS is an error. */
const isFailure = (rcode: Cell | undefined): boolean => rcode != null && rcode !== 'NOERROR'

/** The state of a flow: of its connection, or what DNS said; and whether it is an error. */
export function state(flow: Row): { text: string; bad: boolean } {
  const { tcp_state: tcp, dns_rcode: rcode } = flow
  return { text: text(tcp ?? rcode), bad: tcp == null ? isFailure(rcode) : ['REJ', 'S0', 'RSTO', 'RSTR'].includes(text(tcp)) }
}

/** Status or response code, and whether it is an error; a gRPC call has two. */
export function outcome(row: Row): { text: string; bad: boolean } {
  const [http, grpc, rcode] = [row.http_status, row.grpc_status, row.dns_rcode]
  const parts = [http, grpc == null ? null : `grpc ${grpc}`, rcode].filter((part) => part != null)
  const bad = Number(http ?? 0) >= 400 || Number(grpc ?? 0) > 0 || isFailure(rcode)
  if (parts.length === 0 && row.complete === false) return { text: 'no answer', bad: true }
  return { text: parts.join(' '), bad }
}

export function text(value: Cell | undefined): string {
  if (value === null || value === undefined) return ''
  if (typeof value === 'object') return Object.entries(value).map(([key, own]) => `${key}=${own}`).join(', ')
  return String(value)
}

/** The condition and the aggregation behind its `|`; `null` if there is none. `||` and what stands in quotes is no `|`. */
export function aggregation(query: string): { condition: string; rest: string } | null {
  let quote = ''
  for (let at = 0; at < query.length; at += 1) {
    const own = query.charAt(at)
    if (own === '\\') at += 1
    else if (quote !== '') quote = own === quote ? '' : quote
    else if (own === '"' || own === "'") quote = own
    else if (own === '|' && query.charAt(at + 1) === '|') at += 1
    else if (own === '|') return { condition: query.slice(0, at).trim(), rest: query.slice(at + 1).trim() }
  }
  return null
}

/** A value of an aggregation: its kind is that of the column, or that with `_per_second`. */
export function figure(value: Cell | undefined, kind: string): string {
  if (value === null || value === undefined) return '—'
  if (typeof value !== 'number') return kind === 'time' ? text(value).slice(0, 19).replace('T', ' ') : visible(text(value))
  const rate = kind.endsWith('_per_second')
  const per = rate ? '/s' : ''
  const unit = rate ? kind.slice(0, -'_per_second'.length) : kind
  if (unit === 'size') return (rate && value > 0 && value < 0.5 ? '<1 B' : bytes(value)) + per
  if (unit === 'duration') return micros(rate ? value : Math.round(value)) + per
  return (Number.isInteger(value) ? String(value) : value.toFixed(2)) + per
}

/** A text as it is written in a query: quoted, if it has more than words, points and the like. */
export function literal(value: string): string {
  return /^[\w.:/@+-]+$/.test(value) && !/^(and|or|not|in|exists)$/i.test(value) ? value : `"${value.replaceAll(/[\\"*?]/g, '\\$&')}"`
}

/** `field == value` in the query language: exactly this value, whatever characters it has; none is `field not exists`. */
export function condition(field: string, value: Cell): string {
  if (value === null) return `${field} not exists`
  if (typeof value === 'number' || typeof value === 'boolean') return `${field} == ${value}`
  return `${field} == "${text(value).replaceAll(/[\\"*?]/g, '\\$&')}"`
}

/** The name of a label as it can be asked for: its key is quoted, if it has more than words, points and the like. */
const quoted = (name: string): string =>
  name.replace(/^((?:\w+_)?labels)\.(?![\w./-]+$)(.+)$/s, (_, of: string, key: string) => `${of}."${key.replaceAll(/[\\"]/g, '\\$&')}"`)

/** Groups that are shown at most: tens of thousands of rows stop a browser. */
export const MOST_GROUPS = 1000

/** Those that are shown: of bars of time, which come oldest first, the newest. */
export function mostGroups({ columns, rows }: Pick<Groups, 'columns' | 'rows'>): Row[] {
  const time = columns.find((column) => column.key && column.kind === 'time')?.name ?? ''
  const [first, last] = [rows[0]?.[time], rows.at(-1)?.[time]]
  const rising = typeof first === 'string' && typeof last === 'string' && first < last
  return rising ? rows.slice(-MOST_GROUPS) : rows.slice(0, MOST_GROUPS)
}

/** Conditions that hold of one end, whichever it is. */
export function either(of: (end: 'client' | 'server') => string[]): string {
  return (['client', 'server'] as const).map((end) => `(${of(end).join(' and ')})`).join(' or ')
}

/** Conditions for the rows of a group. What has no side in its name are values of the same end; time is no column. */
export function groupConditions({ columns }: Pick<Groups, 'columns'>, row: Row, known: Set<string>): string[] {
  const names = columns.filter((column) => column.key && column.kind !== 'time').map((column) => column.name)
  const sides = names.filter((name) => known.has(`client_${/^\w+/.exec(name)?.[0]}`))
  const of = (name: string, end: string = '') => condition(end + quoted(name), row[name] ?? null)
  // `name not exists` would ask for none on both sides.
  if (sides.length === 1 && row[sides[0] ?? ''] !== null) return names.map((name) => of(name))
  const others = names.filter((name) => !sides.includes(name)).map((name) => of(name))
  return sides.length === 0 ? others : [...others, either((end) => sides.map((name) => of(name, `${end}_`)))]
}

const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 }

/** A length of time as it is written, `15m` or `1h30m`, ms. */
export function span(text: string): number {
  return [...text.matchAll(/(\d+)([a-z]+)/g)].reduce((sum, [, count, unit]) => sum + Number(count) * (UNITS[unit ?? ''] ?? 0), 0)
}

/** The range of the rows of a group: its bucket, as far as it was asked for; null if groups are of all the time. `rest` is the aggregation. */
export function groupRange({ columns, range }: Pick<Groups, 'columns' | 'range'>, row: Row, rest: string): Range | null {
  const key = columns.find((column) => column.key && column.kind === 'time')
  const width = span(/(?:^|[\s,(])((?:\d+(?:ms|[smhdw]))+)(?=$|[\s,)|])/.exec(rest)?.[1] ?? '')
  if (!key || width === 0) return null
  const start = text(row[key.name])
  // All have nine digits behind the point, and compare as text.
  const end = instant(nanos(start) + BigInt(width) * 1_000_000n)
  return { from: start > range.from ? start : range.from, to: end < range.to ? end : range.to }
}

/** All of these conditions. What may have an `or` is put in parentheses. */
export function conjunction(conditions: string[]): string {
  const parts = conditions.map((part) => part.trim()).filter((part) => part !== '' && part !== '*')
  if (parts.length === 1) return parts[0] ?? ''
  return parts.map((part) => (/\bor\b|\|\|/i.test(part) ? `(${part})` : part)).join(' and ')
}

/** Whether a condition is there already, as one of those that all hold. */
export const holds = (query: string, condition: string): boolean => !/\bor\b|\|\||[("']/i.test(query) && query.split(/ and /i).includes(condition)

/** Where figures come from, in words. */
export function served({ rollups, files, rows, resolution }: Served): string {
  const count = (number: number, what: string) => `${number} ${what}${number === 1 ? '' : 's'}`
  const from = [rollups > 0 ? count(rollups, 'roll-up') : '', files > 0 ? count(files, 'file') : '', count(rows, 'row')]
  const whole = resolution === undefined ? '' : `; where only roll-ups are left, whole ${resolution >= 3600 ? 'hours' : 'minutes'} count`
  return `from ${from.filter((part) => part !== '').join(', ')}${whole}`
}

/** What tells rows apart: the same packets may have been stored twice, with the same numbers. */
export function keys(rows: Row[], part: 'slice' | 'exchange'): string[] {
  const seen = new Map<string, number>()
  return rows.map((row) => {
    const own = `${row.flow_id}.${row[part]}`
    const times = (seen.get(own) ?? 0) + 1
    seen.set(own, times)
    return times === 1 ? own : `${own}.${times}`
  })
}

/** Rows that are kept while flows are followed. */
export const MOST_FOLLOWED = 500

/** Rows with newer ones before them. A slice is there as it was told last; the oldest go. */
export function followed(rows: Row[], newer: Row[], most: number = MOST_FOLLOWED): Row[] {
  const told = new Set<string>()
  const key = (row: Row) => `${row.flow_id}.${row.slice}`
  const latest = newer.filter((row) => !told.has(key(row)) && told.add(key(row)))
  return [...latest, ...rows.filter((row) => !told.has(key(row)))].slice(0, most)
}
