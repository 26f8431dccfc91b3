/** What is asked for most. */

import { type Parameters, query, type Table } from './api'

/** A query and its time: the last `range`, or `custom` with a begin and an end. */
export type Question = { text: string; range: string; from: string; to: string }

const RANGES = ['5m', '15m', '1h', '24h', '7d', '30d']

/** Ranges to choose from, with one of an address. */
export const ranges = (own: string): string[] => (own === 'custom' || RANGES.includes(own) ? RANGES : [own, ...RANGES])

/** What a query looks like. */
export const EXAMPLES: Record<Table, string> = {
  flows: 'container == web and server_port == 80',
  transactions: 'container == web and http_status >= 500',
}

/** Aggregations: a name, and what stands behind the `|`. */
export const AGGREGATIONS: Record<Table, [string, string][]> = {
  flows: [
    ['top workloads', 'top 20 workload by bytes, count'],
    ['top containers', 'top 20 container by bytes, count'],
    ['top addresses', 'top 20 ip by bytes, count'],
    ['who talks to whom', 'top 50 client_workload, server_workload by bytes, count'],
    ['slowest servers', 'top 20 server_workload, server_port by p95(server_rtt_us), p95(response_time_max_us), count'],
    ['most retransmissions', 'top 20 client_workload, server_workload by retransmits, count'],
    ['per minute', 'count, sum(bytes), p95(server_rtt_us) by 1m'],
  ],
  transactions: [
    ['slowest servers', 'top 20 server_workload, app by p95(latency_us), count'],
    ['answers', 'top 20 app, http_status, dns_rcode by count, p95(latency_us)'],
    ['per minute', 'count, p95(latency_us) by 1m'],
  ],
}

/** A question without its time, to be compared with others. */
export function whenever(table: Table, { q, all_observations }: Parameters): string {
  return `${table}?${query({ q, all_observations })}`
}

/** From a begin to an end: without the one from the first row on, without the other until now. */
export const between = (from: string, to: string): { from: string; to: string } => ({ from: from || '1970-01-01', to: to || 'now' })
