/** Policies: what a principal may do with which keys. Default is deny; deny beats allow. */
export type Verb = 'get' | 'await' | 'list' | 'subscribe' | 'declare' | 'resolve' | 'reject' | 'delete' | 'touch' | 'cluster.status';
