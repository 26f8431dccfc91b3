import { describe, expect, it } from 'vitest'
import { downloads } from './api'

describe('downloads', () => {
  it('are of everything that matches, in every format', () => {
    const links = downloads('flows', { q: 'port == 53', from: '-1h', to: 'now' }, null)
    expect(links.map(([name]) => name)).toEqual(['Flows as CSV', 'Flows as JSON lines', 'Flows as Parquet', 'Flows as IPFIX', 'Packets as pcapng'])
    expect(links[3]?.[1]).toBe('/api/v1/flows/export?q=port+%3D%3D+53&from=-1h&to=now&format=ipfix')
    expect(links[4]?.[1]).toBe('/api/v1/pcap?q=port+%3D%3D+53&from=-1h&to=now')
  })

  it('are also of groups, and of transactions where there is such', () => {
    const links = downloads('transactions', { q: '' }, '| count by app')
    expect(links.map(([name]) => name)).toEqual(['Groups as CSV', 'Transactions as CSV', 'Transactions as JSON lines', 'Transactions as Parquet'])
    expect(links[0]?.[1]).toBe('/api/v1/transactions/aggregate?q=%7C+count+by+app&format=csv')
  })
})
