/** critest specs that do not pass, and why. Names are as critest prints them. */

export interface CritestException {
  readonly spec: string;
  readonly versions: string;
  readonly outcome: 'fails' | 'skipped';
  readonly reason: string;
}

export const CRITEST: readonly CritestException[] = [
  {
    spec: 'Image Manager: public image with digest should be pulled and removed',
    versions: '1.26, 1.36',
    outcome: 'fails',
    reason:
      'with a local registry only: it names the digest of content that only the public registry has. containerd fails it there, too',
  },
];
