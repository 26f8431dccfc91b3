/** The HTTP interface, as the page uses it. */

import { instant, nanos } from './time'

export type Cell = string | number | boolean | null | Record<string, string>
/** A row of a table. */
export type Row = Record<string, Cell>
export type Flow = Row
export type Transaction = Row
export type Table = 'flows' | 'transactions'

export interface NodeLoss {
  node: string
  packets: number
  kernel_drops: number
  queue_drops: number
  refused: number
  unwritten: number
  flow_rows_lost: number
  transactions_lost: number
  interruptions: number
  not_captured_seconds: number
}

export interface Completeness {
  complete: boolean
  /** Files that cannot be read, and how many rows of the time they have. */
  unreadable_files: number
  unreadable_rows: number
  /** Segments of packets that are gone from the disk, and how many packets they have. */
  missing_segments: number
  missing_packets: number
  /** Imports with something of the time that did not come to their end. */
  unfinished_imports: number
  /** What retention has deleted of the hours of the range. */
  retired_flow_rows: number
  retired_transactions: number
  retired_packets: number
  nodes: NodeLoss[]
}

export interface Page {
  rows: Row[]
  completeness: Completeness
  next: string | null
}

/** The end is exclusive. */
export type Range = { from: string; to: string }

/** Groups of rows and their figures. */
export interface Groups {
  columns: { name: string; kind: string; key: boolean }[]
  rows: Row[]
  /** How many there are, of which `rows` may have fewer. */
  groups: number
  range: Range
  served_by: Served
  completeness: Completeness
}

/** Where figures come from. */
export interface Served {
  files: number
  rows: number
  rollups: number
  /** What counts where only roll-ups are left: whole minutes (60) or hours (3600) that begin in the range, s. */
  resolution?: number
}

/** A workload; all ends of a namespace that nobody owns; all ends without any name. */
export interface Workload {
  id: string
  cluster: string | null
  namespace: string | null
  workload: string | null
  workload_kind: string | null
  count_as_client: number
  count_as_server: number
  sent_bytes: number
  received_bytes: number
}

/** What clients and servers exchanged. What was not seen is null. */
export interface Figures {
  count: number
  bytes: number
  client_bytes: number
  server_bytes: number
  packets: number
  retransmits: number | null
  resets: number | null
  syn_retries: number | null
  http_requests: number | null
  http_errors: number | null
  client_rtt_p50_us: number | null
  client_rtt_p95_us: number | null
  server_rtt_p50_us: number | null
  server_rtt_p95_us: number | null
  response_time_p50_us: number | null
  response_time_p95_us: number | null
}

/** What a client and a server, ids of workloads, exchanged. */
export type Edge = Figures & { client: string; server: string }

/** The service map; most bytes first. */
export interface Topology {
  nodes: Workload[]
  edges: Edge[]
  /** How many there are, of which `edges` may have fewer. */
  edges_total: number
  served_by: Served
  completeness: Completeness
}

/** Rows of one stretch of time, and the bytes of both directions. */
export interface Bucket {
  start: string
  rows: number
  bytes: number
  ambiguous_ends: number
  unnamed_ends: number
}

export interface FlowDetails {
  /** First to last. */
  slices: Flow[]
  /** How many lie in the middle and are not listed. */
  slices_left_out: number
  observations: Flow[]
}

export interface Field {
  name: string
  kind: string
  doc: string
}

/** An answer that is no success: what went wrong, what to do, and where in the query. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly hint?: string,
    readonly column?: number,
  ) {
    super(message)
  }
}

/** What went wrong, and what to do. */
export function sentence(error: unknown): string {
  if (error instanceof ApiError && error.hint) return `${error.message}; ${error.hint}`
  return error instanceof Error ? error.message : String(error)
}

export type Parameters = Record<string, string | number | boolean | undefined>

export function query(parameters: Parameters): string {
  const pairs = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== '')
  return new URLSearchParams(pairs.map(([name, value]) => [name, String(value)])).toString()
}

let over: () => void = () => undefined
/** What is done when the session turns out to be over. */
export const whenOver = (act: () => void) => void (over = act)

/** How much later it is at the appliance, ms. */
let ahead = 0
/** The time by the appliance's clock, to a second or two. */
export const now = (): number => Date.now() + ahead

async function send(path: string, init?: RequestInit): Promise<Response> {
  let response: Response
  try {
    response = await fetch(path, init)
  } catch {
    throw new ApiError(0, 'the appliance does not answer', 'is it running?')
  }
  const date = Date.parse(response.headers.get('date') ?? '')
  if (!Number.isNaN(date)) ahead = date - Date.now()
  if (response.ok) return response
  if (response.status === 401) over()
  const body = await response.json().catch(() => null)
  const error = body?.error ?? {}
  throw new ApiError(response.status, error.message ?? `status ${response.status}`, error.hint, error.column)
}

/** Questions that take each other's place: a new one ends the one before, so that nobody works on it any longer. */
export class Newest {
  #control = new AbortController()

  /** Of the newest question: its further requests end with it. */
  get signal(): AbortSignal {
    return this.#control.signal
  }

  next(): AbortSignal {
    this.end()
    this.#control = new AbortController()
    return this.signal
  }

  end() {
    this.#control.abort()
  }
}

async function get<T>(path: string, parameters: Parameters = {}, signal?: AbortSignal): Promise<T> {
  const text = query(parameters)
  const response = await send(text ? `${path}?${text}` : path, { signal })
  return (await response.json()) as T
}

/** A page of a table. */
export async function search(table: Table, parameters: Parameters, signal?: AbortSignal): Promise<Page> {
  const { [table]: rows, ...rest } = await get<Record<Table, Row[]> & Omit<Page, 'rows'>>(`/api/v1/${table}`, parameters, signal)
  return { ...rest, rows }
}

const TAIL = '/api/v1/flows/tail'

/** Flows as they are stored: events `flow`, each a row, and `lost`, with the number of `rows` that there was no room for. */
export const tail = (parameters: Parameters) => new EventSource(`${TAIL}?${query(parameters)}`)

/** Fails with the reason why there is no such answer; nothing of one is read. */
async function begins(path: string): Promise<void> {
  const control = new AbortController()
  await send(path, { signal: control.signal })
  control.abort()
}

/** Fails with the reason why flows cannot be followed, which an `EventSource` keeps to itself. */
export const refusal = (parameters: Parameters) => begins(`${TAIL}?${query(parameters)}`)

/**
 * Has the browser download what the link is for, or fails with the reason why there is nothing, which the browser keeps to itself.
 * Groups are worked out as a whole before they are sent: once is enough. Of the rest `HEAD` asks, which begins nothing and takes no place.
 */
export async function download({ href, download }: HTMLAnchorElement): Promise<void> {
  if (new URL(href).pathname.endsWith('/aggregate')) {
    const file = URL.createObjectURL(await (await send(href)).blob())
    Object.assign(document.createElement('a'), { href: file, download }).click()
    setTimeout(() => URL.revokeObjectURL(file), 60_000)
    return
  }
  // The reason is in the body, which `HEAD` has none of.
  if (!(await fetch(href, { method: 'HEAD' }).catch(() => null))?.ok) await begins(href)
  Object.assign(document.createElement('a'), { href, download }).click()
}

/** What an aggregation (a query with `|`) says of the rows of a table. */
export const aggregate = (table: Table, parameters: Parameters, signal?: AbortSignal) =>
  get<Groups>(`/api/v1/${table}/aggregate`, parameters, signal)

/** The commonest values of a column, and how many rows have them. */
export async function values(table: Table, parameters: Parameters, column: string, signal?: AbortSignal): Promise<[Cell, number][]> {
  const { columns, rows } = await aggregate(table, { ...parameters, q: `| top 100 ${column} by count` }, signal)
  const [key, count] = columns.map(({ name }) => name)
  return rows.map((row): [Cell, number] => [row[key ?? ''] ?? null, Number(row[count ?? ''])]).filter(([value]) => value !== null)
}

/** The range of the rows that match, whenever they were, also later than now (to the last day that is a time); null if none does. */
export async function extent(table: Table, parameters: Parameters, signal?: AbortSignal): Promise<Range | null> {
  const q = `${parameters.q ?? ''} | min(start) as first, max(start) as last`
  const { rows } = await aggregate(table, { ...parameters, q, from: '1970-01-01', to: '2262-04-11' }, signal)
  const [first, last] = [rows[0]?.first, rows[0]?.last]
  if (typeof first !== 'string' || typeof last !== 'string') return null
  // An end is exclusive.
  return { from: first, to: instant(nanos(last) + 1n) }
}

/** The service map of flows; it counts primary observations only. */
export const topology = (parameters: Parameters, signal?: AbortSignal) => get<Topology>('/api/v1/topology', parameters, signal)

/** What an aggregation is called, and the whole query. */
export type Grouped = { name: string; q: string }

/** Everything that matches, as files: names and addresses. Packets and IPFIX are of flows. */
export function downloads(table: Table, parameters: Parameters, groups: Grouped | null): [string, string][] {
  const rows = table === 'flows' ? 'Flows' : 'Transactions'
  const formats = [['CSV', 'csv'], ['JSON lines', 'jsonl'], ['Parquet', 'parquet'], ...(table === 'flows' ? [['IPFIX', 'ipfix']] : [])]
  const link = (path: string, own: Parameters) => `/api/v1/${path}?${query({ ...parameters, ...own })}`
  return [
    ...(groups === null ? [] : [[`${groups.name} as CSV`, link(`${table}/aggregate`, { q: groups.q, format: 'csv' })] as [string, string]]),
    ...formats.map(([name, format]): [string, string] => [`${rows} as ${name}`, link(`${table}/export`, { format })]),
    ...(table === 'flows' ? [['Packets as pcapng', link('pcap', {})] as [string, string]] : []),
  ]
}

const FIGURES = `count, sum(bytes) as bytes, sum(client_bytes) as client_bytes, sum(server_bytes) as server_bytes, sum(packets) as packets,
  sum(retransmits) as retransmits, sum(resets) as resets, sum(syn_retries) as syn_retries, sum(http_requests) as http_requests,
  sum(http_errors) as http_errors, p50(client_rtt_us) as client_rtt_p50_us, p95(client_rtt_us) as client_rtt_p95_us,
  p50(server_rtt_us) as server_rtt_p50_us, p95(server_rtt_us) as server_rtt_p95_us,
  p50(response_time_avg_us) as response_time_p50_us, p95(response_time_avg_us) as response_time_p95_us`.replaceAll(/\s+/g, ' ')

const NAMES = ['cluster', 'namespace', 'workload', 'workload_kind']

/** The query that has all edges of the map, those with the most bytes first. */
export const edges = (condition: string) =>
  `${condition} | ${FIGURES} by ${['client', 'server'].flatMap((side) => NAMES.map((name) => `${side}_${name}`)).join(', ')} | sort bytes desc`

/** The figures of an edge, of all flows that pass; null if none does. */
export async function figures(parameters: Parameters, condition: string, signal?: AbortSignal): Promise<Figures | null> {
  const { rows } = await aggregate('flows', { ...parameters, q: `${condition} | ${FIGURES}` }, signal)
  const row = rows[0]
  return row && Number(row.count) > 0 ? (row as unknown as Figures) : null
}

type Totals = Record<Table | 'client_bytes' | 'server_bytes' | 'request_bytes' | 'response_bytes', number> & Bucket

/** Bars, and what they lack. */
export async function histogram(table: Table, parameters: Parameters, signal?: AbortSignal): Promise<{ buckets: Bucket[]; completeness: Completeness }> {
  const { buckets, completeness } = await get<{ buckets: Totals[]; completeness: Completeness }>(`/api/v1/${table}/histogram`, parameters, signal)
  const bucket = (own: Totals): Bucket => ({
    start: own.start,
    rows: own[table],
    bytes: table === 'flows' ? own.client_bytes + own.server_bytes : own.request_bytes + own.response_bytes,
    ambiguous_ends: own.ambiguous_ends,
    unnamed_ends: own.unnamed_ends,
  })
  return { buckets: buckets.map(bucket), completeness }
}

export const flow = (id: string, signal?: AbortSignal) => get<FlowDetails>(`/api/v1/flows/${id}`, {}, signal)
/** The exchanges of a flow between the start of its first slice and the end of its last (or of late), newest first. */
export const exchanges = (id: string, slices: Flow[], signal?: AbortSignal) => {
  const wanted = { q: `flow_id == ${id}`, all_observations: true, limit: 100 }
  if (slices.length === 0) return search('transactions', { ...wanted, from: '-1h', to: 'now' }, signal)
  // RFC 3339 compares as text.
  const to = slices.map((slice) => String(slice.end)).reduce((a, b) => (a > b ? a : b), '')
  const from = slices.map((slice) => String(slice.start)).reduce((a, b) => (a < b ? a : b), to)
  return search('transactions', { ...wanted, from, to: instant(nanos(to) + 1n) }, signal)
}
export const fields = (table: Table) =>
  get<{ fields: Field[] }>('/api/v1/fields', { table }).then((answer) => answer.fields)
/** How the appliance is doing; problems are told to those who may see all rows. */
export type Health = { status: 'ok' | 'degraded'; problems?: string[] }
export const health = (signal?: AbortSignal) => get<Health>('/api/v1/health', {}, signal)

/** Who is logged in: the name of a reader, and the filter of the rows that it sees; null where there is none. */
export type Session = { reader: string | null; rows: string | null }
export const session = () => get<Session>('/api/v1/session')

export const login = (token: string) =>
  send('/api/v1/login', {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-wiretag': '1' },
    body: JSON.stringify({ token }),
  })

export const logout = () => send('/api/v1/logout', { method: 'POST', headers: { 'x-wiretag': '1' } })
