#!/usr/bin/perl
# Plants the defect of a mutant into the source tree in the working directory: plant.pl [--check]
# FILE
#
# A mutant is a text: what it breaks, then its headers, an empty line, and edits. An edit is the
# path of a file, lines to find (with "-") and lines to put in their place (with "+"). Blanks at the
# beginning of a line do not count. What is to be found has to be in the file exactly once.
use strict;
use warnings;

my $check = @ARGV && $ARGV[0] eq '--check' ? shift @ARGV : 0;
my ($mutant) = @ARGV or die "usage: plant.pl [--check] FILE\n";
open(my $in, '<', $mutant) or die "$mutant: $!\n";
my @lines = <$in>;
chomp @lines;
shift @lines while @lines && $lines[0] ne '';

my (%text, $path, @edits);
for my $line (@lines) {
    if ($line =~ /^- ?(.*)/) {
        push @edits, { path => $path, old => [], new => [] } if !@edits || @{ $edits[-1]{new} } || $edits[-1]{path} ne $path || $edits[-1]{done};
        push @{ $edits[-1]{old} }, $1;
    } elsif ($line =~ /^\+ ?(.*)/) {
        push @{ $edits[-1]{new} }, $1;
    } elsif ($line eq '') {
        $edits[-1]{done} = 1 if @edits;
    } else {
        $path = $line;
        $edits[-1]{done} = 1 if @edits;
    }
}
die "$mutant: no edits\n" unless @edits;

sub trimmed { my ($line) = @_; $line =~ s/^\s+//; return $line; }

for my $edit (@edits) {
    my $file = $edit->{path};
    if (!$text{$file}) {
        open(my $source, '<', $file) or die "$mutant: $file: $!\n";
        $text{$file} = [ map { chomp; $_ } <$source> ];
    }
    my @old = map { trimmed($_) } @{ $edit->{old} };
    my $have = $text{$file};
    my @found = grep {
        my $at = $_;
        !grep { trimmed($have->[ $at + $_ ]) ne $old[$_] } 0 .. $#old;
    } 0 .. @$have - @old;
    die "$mutant: $file has " . @found . " times: $old[0]\n" unless @found == 1;
    splice @$have, $found[0], scalar @old, @{ $edit->{new} };
}
exit 0 if $check;
for my $file (keys %text) {
    open(my $out, '>', $file) or die "$file: $!\n";
    print $out "$_\n" for @{ $text{$file} };
}
